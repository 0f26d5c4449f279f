"""What happens to each operator of `ai.onnx`: the one place that knows, for people and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx

from graph_rewrites.activity import CONTROL_FLOW
from graph_rewrites.canonical import DECOMPOSED
from graph_rewrites.expansion import expands
from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.rules.refused import REFUSED

Kind = Literal["rule", "function", "zero", "refused", "missing"]

FIRST, LAST = 7, 26
"""The operator sets that models may have."""

_SUCCESSORS = {"Scatter": "ScatterElements", "Upsample": "Resize"}


@dataclass(frozen=True)
class Operator:
    """One operator of the default domain.

    Attributes:
        op_type: its name.
        first: the first operator set that has it, 7 at least.
        last: the last one, 26 at most.
        kind: "rule": it has a rule; "function": it is differentiated as the composition of others
            that it is; "zero": its derivative is zero wherever there is one; "refused": where it
            lies on the path, an error says so; "missing": nobody has thought of it.
        why: why it is refused, or what it is instead; else empty.
    """

    op_type: str
    first: int
    last: int
    kind: Kind
    why: str = ""


def operators() -> list[Operator]:
    """Every operator of `ai.onnx` in opset 7 to 26, by name."""
    names = {s.name for s in onnx.defs.get_all_schemas_with_history() if not s.domain}
    found = []
    for name in sorted(names):
        versions = [v for v in range(FIRST, LAST + 1) if onnx.defs.has(name, v, "")]
        usable = [v for v in versions if not onnx.defs.get_schema(name, v, "").deprecated]
        if usable:
            found.append(Operator(name, versions[0], usable[-1], *verdict(name)))
    return found


def verdict(op_type: str) -> tuple[Kind, str]:
    """What happens to an operator of the default domain, and why where that asks for a reason."""
    rule = DEFAULT_RULES.get(op_type)
    if rule is not None:
        return ("zero" if rule.is_zero else "rule"), ""
    if op_type in _SUCCESSORS:
        return "rule", f"as {_SUCCESSORS[op_type]}"
    if op_type in REFUSED:
        return "refused", REFUSED[op_type]
    if op_type in CONTROL_FLOW:
        return "refused", "it decides at run time; one whose condition is constant goes away"
    if ("", op_type) in DECOMPOSED or expands(op_type, LAST):
        return "function", ""
    schema = onnx.defs.get_schema(op_type)
    return ("zero", "") if not schema.max_input else ("missing", "")
