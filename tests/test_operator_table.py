"""The table of operators: complete, true, and in the README as it is."""

from pathlib import Path

import onnx
import pytest

import graph_rewrites as gr
from graph_rewrites.operators import FIRST, LAST, operators

from .operator_table import BEGIN, END, up_to_date


def test_the_readme_has_the_table_of_today(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert BEGIN in readme and END in readme
    assert up_to_date(readme) == readme, "stale: python -m tests.operator_table"


def test_nobody_forgot_an_operator() -> None:
    named = {operator.op_type for operator in operators()}
    schemas = onnx.defs.get_all_schemas_with_history()
    assert named == {s.name for s in schemas if not s.domain and s.since_version <= LAST}
    assert [operator for operator in operators() if operator.kind == "missing"] == []


@pytest.mark.parametrize("operator", operators(), ids=lambda operator: operator.op_type)
def test_an_operator_exists_where_the_table_says(operator) -> None:
    assert FIRST <= operator.first <= operator.last <= LAST
    for version in (operator.first, operator.last):
        assert onnx.defs.has(operator.op_type, version, "")


def test_the_verdict_is_the_sweep_s() -> None:
    kinds = {operator.op_type: operator.kind for operator in operators()}
    for op_type, rule in gr.DEFAULT_RULES.rules.items():
        assert kinds[op_type] == ("zero" if rule.is_zero else "rule")
    refused = {name for name, kind in kinds.items() if kind == "refused"}
    assert {"If", "Loop", "Scan", "Unique"} <= refused
