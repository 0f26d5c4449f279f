"""Every operator of ONNX has a state: a rule, a body, a zero, or a reason why it has none."""

import onnx
import pytest

import graph_rewrites as gr
from graph_rewrites.operators import operators
from graph_rewrites.rules.refused import REFUSED
from tests.graph_rewrites.samples import graph_of


def test_nobody_was_forgotten() -> None:
    assert [operator.op_type for operator in operators() if operator.kind == "missing"] == []


def test_what_is_refused_exists_and_has_no_rule() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert set(REFUSED) <= known - set(gr.DEFAULT_RULES.rules)


@pytest.mark.parametrize("op_type", REFUSED)
def test_a_reason_goes_on_with_a_remedy(op_type: str) -> None:
    reason, _, remedy = REFUSED[op_type].partition("; ")
    assert reason.startswith("it ") or "depends on" in reason
    assert remedy.startswith(("explain", "export", "choose"))


def test_the_error_gives_the_reason() -> None:
    model = graph_of("g (float[2, 3] x) => (float[M] y) { y = Unique(x) }")
    with pytest.raises(gr.errors.MissingRuleError) as caught:
        gr.differentiate(model, "x", of="y")
    assert str(caught.value) == f"Unique (output 'y', opset 18) has no rule: {REFUSED['Unique']}"


def test_a_rule_of_ones_own_comes_first() -> None:
    model = graph_of("g (float[4] x) => (float[M] y) { y = Unique(x) }")
    rules = gr.DEFAULT_RULES.override(Unique=lambda op, node, cts: [op.Identity(cts[0])])
    grads = gr.differentiate(model, "x", of="y", rules=rules)
    assert "grad/x" in {value.name for value in grads.graph.output}
