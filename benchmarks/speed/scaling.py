"""`python -m benchmarks.speed.scaling`: how the cost grows, with its fitted exponents and a plot.

Forward and gradient of one lowered explanation model, over more images, larger pictures, more
classes of one picture, and deeper networks. Along the last axis the size is the forward's own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import onnx

import graph_rewrites as gr
from analyzer.specialized import SpecializedSession
from benchmarks.conformance.torch_reference import TorchReference
from benchmarks.speed.timing import Run, by_turns
from tests.oracles.onnx_gradients import resized

PAGE = Path(__file__).parents[1] / "SCALING.md"
PLOT = PAGE.with_suffix(".svg")
BATCHES, SIDES, CLASSES = (
    (1, 2, 4, 8, 16, 32, 64),
    (224, 320, 448, 640, 896),
    (1, 2, 5, 10, 30, 100),
)
DEPTHS = (18, 34, 50, 101, 152)
Series = Mapping[float, float]
"""Seconds by size."""


@click.command()
@click.option("--threads", default=2, show_default=True)
@click.option("--exports", type=click.Path(path_type=Path), required=True, help="For the exports.")
def main(threads: int, exports: Path) -> None:
    """Measure, and write SCALING.md and its plot."""
    exports.mkdir(parents=True, exist_ok=True)
    small = _export(18, exports)
    series = {
        "images": _measured((n, _run(small, n, 1, threads)) for n in BATCHES),
        "pixels": _measured((s * s, _run(resized(small, s), 1, 1, threads)) for s in SIDES),
        "classes": _measured((t, _run(small, 1, t, threads)) for t in CLASSES),
        "depth": _by_forward(exports, threads),
    }
    PLOT.write_text(_svg(series), encoding="utf-8")
    PAGE.write_text("\n".join(_page(series)) + "\n", encoding="utf-8")


def exponent(series: Series) -> float:
    """The slope of log seconds over log size: 1 where the cost is proportional."""
    slope, _ = np.polyfit(np.log(list(series)), np.log(list(series.values())), 1)
    return float(slope)


def _export(depth: int, exports: Path) -> onnx.ModelProto:
    member = f"torchvision/resnet{depth}"
    file = exports / f"{member.replace('/', '__')}.onnx"
    TorchReference(member).export(file)
    return onnx.load(file)


def _run(model: onnx.ModelProto, images: int, targets: int, threads: int) -> Run:
    built = gr.explanation_model(model, "gradient", targets=targets)
    tensor = built.graph.input[0]
    image = [dim.dim_value for dim in tensor.type.tensor_type.shape.dim[1:]]
    pictures = np.random.default_rng(0).standard_normal((images, *image)).astype(np.float32)
    target = np.zeros((images, targets) if targets > 1 else images, np.int64)
    session = SpecializedSession(built, "cpu", threads)
    return lambda: session.run({tensor.name: pictures, "target": target})


def _measured(runs: Iterator[tuple[float, Run]]) -> Series:
    return {size: by_turns({"": run}, 1.0, 3)[""].median for size, run in runs}


def _by_forward(exports: Path, threads: int) -> Series:
    """The gradient's time by the forward's, for networks of several depths."""
    found = {}
    for depth in DEPTHS:
        model = gr.canonicalize(_export(depth, exports))
        contenders = {"forward": _forward(model, threads), "gradient": _run(model, 1, 1, threads)}
        times = by_turns(contenders, 1.0, 3)
        found[times["forward"].median] = times["gradient"].median
    return found


def _forward(model: onnx.ModelProto, threads: int) -> Run:
    session = SpecializedSession(model, "cpu", threads)
    feeds = {model.graph.input[0].name: np.zeros((1, 3, 224, 224), np.float32)}
    return lambda: session.run(feeds)


def _page(series: Mapping[str, Series]) -> Iterator[str]:
    yield from (
        "# Scaling",
        "",
        "Forward and gradient of a lowered ResNet-18 (of five ResNets along *depth*, whose size is",
        "the forward's own time in seconds), seconds by size. Written by",
        "`python -m benchmarks.speed.scaling`. An exponent of 1 is a cost in proportion.",
        "",
        "![Time over size, both logarithmic](SCALING.svg)",
        "",
        "| size | exponent | seconds |",
        "| --- | ---: | --- |",
    )
    for name, values in series.items():
        cells = ", ".join(f"{size:.4g}: {seconds:.3g}" for size, seconds in values.items())
        yield f"| {name} | {exponent(values):.2f} | {cells} |"


_WIDTH, _HEIGHT, _MARGIN = 640, 400, 50
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito's, safe for all eyes


def _svg(series: Mapping[str, Series]) -> str:
    """Each line from its own first point: time and size as multiples of it, logarithmic."""
    lines = {name: _relative(values) for name, values in series.items()}
    largest = max(max(point) for line in lines.values() for point in line)
    body = []
    for (name, line), colour in zip(lines.items(), _COLOURS, strict=True):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_placed(p, largest) for p in line))
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = _placed(line[-1], largest)
        body.append(f'<text x="{x + 6:.1f}" y="{y:.1f}" fill="{colour}">{name}</text>')
    start, end = _placed((0.0, 0.0), largest), _placed((largest, largest), largest)
    diagonal = f'<path d="M{start[0]},{start[1]}L{end[0]},{end[1]}" stroke="#999" {_DASHED}/>'
    labels = (
        f'<text x="{_MARGIN}" y="{_HEIGHT - 10}">size, multiples of the first, logarithmic; '
        "dashed: in proportion</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="13">{diagonal}{"".join(body)}{labels}</svg>\n'
    )


_DASHED = 'stroke-dasharray="4"'


def _relative(series: Series) -> Sequence[tuple[float, float]]:
    points = np.log(np.array(sorted(series.items())))
    return [(float(x), float(y)) for x, y in points - points[0]]


def _placed(point: tuple[float, float], largest: float) -> tuple[float, float]:
    x = _MARGIN + point[0] / largest * (_WIDTH - 3 * _MARGIN)
    return x, _HEIGHT - _MARGIN - point[1] / largest * (_HEIGHT - 2 * _MARGIN)


if __name__ == "__main__":
    main()
