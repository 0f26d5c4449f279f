"""The table of all artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conformance.fingerprints import fingerprint
from tests.oracles.passes import ROUNDING_BAR, SHARP_BAR

_HEADER = """\
# Artefacts

One network, many files: what PyTorch exports at other opsets, what the runtime's optimiser, its
static quantiser and its float16 converter make of PyTorch's own export. Weights are random and
seeded, pictures are noise of {size} × {size} pixels, {pictures} of them, explained for the class
that the original answers. `python -m benchmarks.artefacts` writes this page.

- *nodes*: of the file, and of the explanation model with all six methods.
- *sharp*: the float64 check of `graph_rewrites/sharp.py`, ≤ 1e-6. In quantised files it proves the
  straight-through gradient: nothing is rounded, only folded ReLUs saturate.
- *gradient*: ‖Δ‖/‖g‖ from PyTorch's float64 gradient (the median over the pictures) / the largest
  distance of PyTorch's own float32 gradient. *from the original*: the same from the original's.
- *Grad-CAM*, *saliency*, *guided*: Spearman's rank correlation with the original's map, the median;
  Grad-CAM on the layer's own grid, and its cosine.
- *scores*: ‖Δ‖/‖y‖ from the original's: what the artefact itself lost.
- *ReLUs*: in coverage, of these folded into a QuantizeLinear / in the original; the same for the
  smooth activations.
- *integer convolutions*: in the session of the file itself → in the explanation model's.
- *own scores*: the explanation model's beside the file's in the same session options: by default /
  with the optimiser off; steps are those of the scores' own scale.

| network | artefact | opset | nodes | methods | sharp | gradient | from the original | Grad-CAM | \
saliency | guided | scores | ReLUs | smooth | integer convolutions | own scores | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | \
---: | --- | --- |
"""

_REASON = """\

{agree} of {all} agree. Float artefacts meet both parts of the bar: *sharp*, and a median distance \
from
PyTorch's float64 gradient of at most 1e-4 or three times PyTorch's own. For quantised and float16
artefacts, whose forward is another function than the original's, the verdict asks what can be
asked: all methods finite, *sharp*, every ReLU and smooth activation of the original in coverage,
the file's arg-max and, where there are integer convolutions, every one of them kept. Every bit of
the scores is the file's, but for operators on int8 activations, which run as their unsigned form:
convolutions agree to the last bit there too, but an addition rounds in float, and its ties fall
otherwise where the zero point is 128 greater (MobileNetV2: 3 of 25,088 numbers of the fifth one
by one step; the layers behind carry it on). The scores are then at most {steps} steps of 255 away;
random networks may have their best classes nearer to each other than that.
"""
_STEPS = 16


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the page for the rows measured so far."""
    measured = [row for row in rows if "error" not in row]
    if not measured:
        return
    text = _HEADER.format(size=measured[0]["size"], pictures=6)
    text += "".join(_line(row) for row in rows)
    agree = sum(verdict(row) == "agrees" for row in rows)
    text += _REASON.format(agree=agree, all=len(rows), steps=_STEPS)
    current = sum(row["code"] == fingerprint() for row in rows)
    text += f"{current} of {len(rows)} were measured with the present rewriter.\n"
    path.write_text(text, encoding="utf-8")


def verdict(row: Mapping[str, Any]) -> str:
    """The word "agrees", or the first bar that is missed."""
    if "error" in row:
        return f"failed: {row['error']}"
    kind = row["artefact"]
    quantised = kind.endswith("int8")
    bars = {
        "a method is not finite": row["methods"] == 6,
        "sharp": row["sharp"] <= SHARP_BAR,
        "gradient": quantised
        or kind == "float16"
        or row["framework"] <= max(ROUNDING_BAR, 3 * row["framework_own"]),
        "coverage": all(row[k] == row[f"original_{k}"] for k in ("relus", "smooth")),
        "integer convolutions": not quantised
        or 0 < row["integer_convolutions"] == row["integer_convolutions_kept"],
        "scores": (row["bit_equal"] or not quantised or kind == "operators, int8")
        and (row["bit_equal_unoptimised"] or not kind.startswith("Q/DQ")),
        "arg-max": row["same_arg_max"] == 6,
        "steps": not kind.endswith(" int8") or row["steps_off"] <= _STEPS,
    }
    return next((name for name, met in bars.items() if not met), "agrees")


def _line(row: Mapping[str, Any]) -> str:
    if "error" in row:
        cells = [row["network"], row["artefact"], *[""] * 14, verdict(row)]
        return "| " + " | ".join(cells) + " |\n"
    cells = [
        row["network"],
        row["artefact"],
        str(row["opset"]),
        f"{row['nodes']} → {row['explained']}",
        f"{row['methods']}/6",
        f"{row['sharp']:.0e}",
        f"{row['framework']:.1e} / {row['framework_own']:.1e}",
        f"{row['gradient']:.1e}",
        f"{row['cam_spearman']:.3f}, {row['cam_cosine']:.3f}",
        f"{row['saliency_spearman']:.3f}",
        f"{row['guided_spearman']:.3f}",
        f"{row['scores']:.1e}",
        f"{row['relus']} ({row['folded']} folded) / {row['original_relus']}",
        f"{row['smooth']} / {row['original_smooth']}",
        f"{row['integer_convolutions']} → {row['integer_convolutions_kept']}",
        f"{_own_scores(row)} / {'bit-equal' if row['bit_equal_unoptimised'] else 'not'}",
        verdict(row),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _own_scores(row: Mapping[str, Any]) -> str:
    if row["bit_equal"]:
        return "bit-equal"
    if row["steps_off"] is not None:
        return f"≤ {row['steps_off']:.0f} steps, arg-max {row['same_arg_max']}/6"
    return f"≤ {row['scores_off']:.0e} of the largest, arg-max {row['same_arg_max']}/6"
