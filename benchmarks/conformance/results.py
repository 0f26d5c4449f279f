"""One line per member: kept as JSON, shown as a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.conformance.fingerprints import fingerprint, lowering_fingerprint
from benchmarks.conformance.members import members
from benchmarks.markdown import line, rule

FILE = Path(__file__).with_name("results.jsonl")
TABLE = Path(__file__).parents[1] / "CONFORMANCE.md"
AGREES, DIFFERS, REFUSED, NOT_EXPORTED, FAILED = (
    "agrees",
    "differs",
    "refused",
    "not exported",
    "failed",
)


@dataclass(frozen=True)
class Result:
    """What was found for one member.

    Attributes:
        member: "<zoo>/<name>".
        verdict: "agrees", "differs", "refused" (by this package), "not exported" (by the
            framework) or "failed".
        reason: in words, where the verdict needs them.
        shape: of one image.
        nodes: of the exported graph.
        operators: of the exported graph, by name.
        layer: the default CAM layer's path or tensor, "" where there is none.
        figures: see `COLUMNS`; a figure that was not measured is absent.
        code: fingerprint of the newest rewriter, its lowering left out, that made the models that
            were measured.
        lowering: fingerprint of the newest lowering that made the lowered one.
        models: digest of the models that were measured, "" where none was.
        lowered_model: digest of the lowered one.
    """

    member: str
    verdict: str
    reason: str = ""
    shape: Sequence[int] = ()
    nodes: int = 0
    operators: Mapping[str, int] = field(default_factory=dict)
    layer: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    code: str = field(default_factory=fingerprint)
    lowering: str = field(default_factory=lowering_fingerprint)
    models: str = ""
    lowered_model: str = ""

    @property
    def current(self) -> bool:
        """Whether the portable models are what the present rewriter makes."""
        return self.code == fingerprint()

    @property
    def lowering_current(self) -> bool:
        """Whether the lowered one is, too."""
        return self.current and self.lowering == lowering_fingerprint()


# Column, figure, what it says.
COLUMNS = (
    ("sharp, image", "sharp_image", "float64 directional error at the picture"),
    ("sharp, layer", "sharp_layer", "the same at the default CAM layer"),
    ("image", "image", "median distance of the gradient at the picture"),
    ("layer", "layer", "the same at the default CAM layer"),
    ("own, image", "own_image", "largest distance of the framework's own float32 gradient"),
    ("own, layer", "own_layer", "the same at the layer"),
    ("flips", "flips", "elements on another linear piece than in float64, over all pictures"),
    ("forced", "forced", "largest distance once the framework is held to the runtime's pieces"),
    ("own, forced", "own_forced", "the same of the framework's own float32 gradient"),
    ("guided", "guided", "guided backpropagation, distance at the picture, held likewise"),
    ("deconvnet", "deconvnet", "deconvnet, the same"),
    ("lowered", "lowered", "distance of the model lowered for the CPU from the portable one"),
    ("moved", "moved", "elements on another piece in the lowered forward"),
    ("build, s", "build", "canonical form and backward graph"),
)


def read(path: Path = FILE) -> dict[str, Result]:
    """The newest result of every member."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {entry.member: entry for entry in (Result(**json.loads(text)) for text in lines)}


def append(result: Result, path: Path = FILE) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result), sort_keys=True) + "\n")


def write_table(results: Mapping[str, Result], path: Path = TABLE) -> None:
    """Write the Markdown page."""
    path.write_text(table(results), encoding="utf-8")


def table(results: Mapping[str, Result]) -> str:
    """Counts per zoo, what is not in agreement and why, and every member's figures."""
    ordered = [results[member] for member in sorted(results)]
    zoos = sorted({entry.member.partition("/")[0] for entry in ordered})
    verdicts = (AGREES, DIFFERS, REFUSED, NOT_EXPORTED, FAILED)
    lines = [*_INTRODUCTION, "", line("zoo", "members", *verdicts), rule(1 + len(verdicts))]
    for zoo in zoos:
        found = Counter(e.verdict for e in ordered if e.member.startswith(f"{zoo}/"))
        lines.append(line(zoo, found.total(), *(found[verdict] for verdict in verdicts)))
    operators = sorted({name for entry in ordered for name in entry.operators})
    lines += ["", f"Operators in these graphs, {len(operators)}: {', '.join(operators)}."]
    current = sum(entry.current for entry in ordered)
    lowered = sum(entry.lowering_current for entry in ordered)
    lines += [
        "",
        f"Of {current} of {len(ordered)} the present rewriter makes the very models that were",
        f"measured, of {lowered} the present lowering too.",
        "",
    ]
    left = [member for member in members() if member not in results]
    if left:
        lines += [f"Not measured, {len(left)}: {', '.join(left)}.", ""]
    others = [entry for entry in ordered if entry.verdict != AGREES]
    if others:
        lines += ["## Not in agreement", "", line("member", "verdict", "reason"), rule(0, 3)]
        lines += [line(e.member, e.verdict, e.reason.replace("|", "\\|")) for e in others]
        lines.append("")
    heads = [column for column, _, _ in COLUMNS]
    lines += ["## Figures", ""]
    lines += [line("member", "default layer", "nodes", *heads), rule(1 + len(heads), 2)]
    lines += [_figures(entry) for entry in ordered if entry.figures]
    return "\n".join(lines) + "\n"


_INTRODUCTION = [
    "# Conformance",
    "",
    "Whole model zoos with seeded random weights, exported, differentiated and run by the runtime",
    "on the CPU, against their own framework: three batches of two pictures at native size; of",
    "qwen3_vit_88m (768 pixels), sam2_hiera_tiny (896), torchvision's efficientnet_b7 (600), and",
    "Keras's EfficientNetB6 (528) and B7 (600) at half of it, where the framework's float64 pass",
    "fits into memory.",
    "Distances are ‖Δ‖/‖g‖ from the framework's float64 gradient. A blank cell was not measured,",
    "or does not apply (no ReLU, no kink, no default layer). Written by",
    "`python -m benchmarks.conformance`.",
    "",
    *(f"- *{column}*: {meaning}." for column, _, meaning in COLUMNS),
]


def _figures(entry: Result) -> str:
    cells = []
    for _, figure, _ in COLUMNS:
        value = entry.figures.get(figure)
        if value is None:
            cells.append("")
        elif figure in ("flips", "moved"):
            cells.append(str(int(value)))
        else:
            cells.append(f"{value:.1f}" if figure == "build" else f"{value:.1e}")
    return line(entry.member, entry.layer, entry.nodes, *cells)
