"""The artefact run: its verdicts can fail, and one artefact of each kind at a small size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

table = pytest.importorskip("benchmarks.artefacts.table")

GOOD: dict[str, Any] = {
    "network": "net", "artefact": "opset 9", "opset": 9, "nodes": 9, "explained": 30, "methods": 6,
    "sharp": 1e-8, "framework": 2e-3, "framework_own": 1e-3, "gradient": 1e-3, "relus": 4,
    "original_relus": 4, "folded": 0, "smooth": 1, "original_smooth": 1, "cam_spearman": 1.0,
    "cam_cosine": 1.0, "saliency_spearman": 1.0, "guided_spearman": 1.0, "scores": 0.0,
    "integer_convolutions": 0, "integer_convolutions_kept": 0, "steps_off": None,
    "scores_off": 0.0, "bit_equal": True, "bit_equal_unoptimised": True, "same_arg_max": 6,
    "code": "0", "size": 64,
}  # fmt: skip
INTEGER = {
    "artefact": "Q/DQ, uint8", "integer_convolutions": 5, "integer_convolutions_kept": 5,
    "steps_off": 0.0,
}  # fmt: skip
INT8 = {**INTEGER, "artefact": "Q/DQ, int8"}
OPERATORS = {**INT8, "artefact": "operators, int8", "bit_equal": False, "steps_off": 9.0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "agrees"),
        ({"methods": 5}, "a method is not finite"),
        ({"sharp": 2e-6}, "sharp"),
        ({"sharp": float("nan")}, "sharp"),
        ({"framework": 4e-3}, "gradient"),
        ({"relus": 3}, "coverage"),
        ({"smooth": 2}, "coverage"),
        ({"same_arg_max": 5}, "arg-max"),
        ({"error": "no such thing"}, "failed: no such thing"),
        (INTEGER, "agrees"),
        ({**INTEGER, "framework": 1.0}, "agrees"),
        ({**INTEGER, "integer_convolutions_kept": 4}, "integer convolutions"),
        ({**INTEGER, "integer_convolutions": 0, "integer_convolutions_kept": 0},
         "integer convolutions"),
        ({**INTEGER, "bit_equal": False}, "scores"),
        ({**INT8, "bit_equal": False}, "scores"),
        ({**INT8, "bit_equal_unoptimised": False}, "scores"),
        (OPERATORS, "agrees"),
        ({**OPERATORS, "bit_equal_unoptimised": False}, "agrees"),
        ({**OPERATORS, "integer_convolutions_kept": 4}, "integer convolutions"),
        ({**OPERATORS, "steps_off": 17.0}, "steps"),
        ({**OPERATORS, "same_arg_max": 5}, "arg-max"),
    ],
)  # fmt: skip
def test_every_bar_can_be_missed(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    row = {**GOOD, **change}
    assert table.verdict(row) == expected
    table.write_table([GOOD, row], tmp_path / "table.md")
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert f"| {expected} |" in lines[-1]


@pytest.mark.oracles
@pytest.mark.slow
@pytest.mark.parametrize("artefact", ["opset 13", "operators, uint8", "Q/DQ, int8", "float16"])
def test_artefacts_of_the_smallest_network_agree(artefact: str, tmp_path: Path) -> None:
    from benchmarks.artefacts.measuring import measure

    assert table.verdict(measure("mobilenet_v2", artefact, 64, tmp_path)) == "agrees"
