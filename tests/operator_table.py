"""The table of operators in the README. `python -m tests.operator_table` brings it up to date."""

from __future__ import annotations

from pathlib import Path

from graph_rewrites.operators import FIRST, LAST, Operator, operators

BEGIN, END = "<!-- operators: begin -->", "<!-- operators: end -->"
"""What stands between these lines of the README is written here."""


def table() -> str:
    """One row per operator, folded away."""
    found = operators()
    counts = {kind: sum(o.kind == kind for o in found) for kind in ("rule", "function", "zero")}
    rows = [f"| {o.op_type} | {_span(o)} | {_verdict(o)} |" for o in found]
    return "\n".join(
        [
            BEGIN,
            "<details>",
            f"<summary>Every operator of ai.onnx, opset {FIRST} to {LAST}: {counts['rule']} with a "
            f"rule, {counts['function']} by their function, {counts['zero']} with a zero, "
            f"{len(found) - sum(counts.values())} refused</summary>",
            "",
            "| operator | opsets | kind |",
            "| --- | --- | --- |",
            *rows,
            "",
            "</details>",
            END,
        ]
    )


def _span(operator: Operator) -> str:
    first, last = operator.first, operator.last
    return f"{first}" if first == last else f"{first}-{last}"


def _verdict(operator: Operator) -> str:
    reason = operator.why.split(";")[0]
    return f"{operator.kind}: {reason}" if reason else operator.kind


def up_to_date(readme: str) -> str:
    """The README with the table as it should be."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{table()}{after}"


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "README.md"
    path.write_text(up_to_date(path.read_text(encoding="utf-8")), encoding="utf-8")
