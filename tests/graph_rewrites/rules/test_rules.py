"""Every rule against its operator, over the case tables; and the laws of the tables."""

import onnx
import pytest

from graph_rewrites.rules import DEFAULT_RULES

from .harness import BATCHES, Case, collect

CASES = collect()
RUNS = [
    pytest.param(
        case, batch, optimised, id=f"{case}-N{batch}-{'optimised' if optimised else 'plain'}"
    )
    for case in CASES
    for batch in (BATCHES if case.batched else BATCHES[:1])
    for optimised in (True, False)
]
NOT_CANONICAL = {"auto_pad", "output_shape"}
"""Attributes that canonical form has replaced before any rule runs."""
NUMBER_FORMATS = {"saturate", "stash_type", "output_dtype", "block_size"}
"""Attributes that say how numbers are stored, not what is computed."""
STRAIGHT_THROUGH = {"DynamicQuantizeLinear"}
"""Declared zero though it is not: its scale counts as constant. See canonical/test_dynamic.py."""
PER_AXIS_SCALES = {("QuantizeLinear", "axis"), ("DequantizeLinear", "axis")}
"""A quantised tensor's cotangent is that of its dequantised value: no scale enters."""


@pytest.mark.parametrize(("case", "batch", "optimised"), RUNS)
def test_rule_is_the_transposed_jacobian(case: Case, batch: int, optimised: bool) -> None:
    rule = DEFAULT_RULES.get(case.op)
    assert rule is not None, f"{case.op} has cases but no rule"
    case.check(rule, batch, optimised=optimised)


def test_every_rule_has_a_case() -> None:
    assert set(DEFAULT_RULES.rules) - {case.op for case in CASES} == STRAIGHT_THROUGH


def test_every_attribute_has_a_case() -> None:
    tried = {(case.op, name) for case in CASES for name in case.attrs}
    missing = [
        (op, name)
        for op, rule in DEFAULT_RULES.rules.items()
        if not rule.is_zero
        for name in onnx.defs.get_schema(op, 21, "").attributes
        if name not in NOT_CANONICAL | NUMBER_FORMATS
    ]
    assert set(missing) - tried - PER_AXIS_SCALES == set()


def test_cases_have_distinct_names() -> None:
    names = [str(case) for case in CASES]
    assert sorted(set(names)) == sorted(names)


def test_cases_keep_to_the_operator_sets_of_canonical_form() -> None:
    assert all(18 <= case.opset <= 21 for case in CASES)
