"""`python -m benchmarks.speed.patterns`: what each pattern of the CPU's lowering gains.

Each is left out once: the gain is the time without it over the time with all. A pattern that lets
others apply is credited with what they gain through it. PATTERNS.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from unittest.mock import patch

import click
import numpy as np
import onnx

import graph_rewrites as gr
from analyzer.session import Session
from benchmarks.markdown import line, rule
from benchmarks.speed.machine import machine
from benchmarks.speed.networks import NETWORKS, open_network
from benchmarks.speed.timing import Run, by_turns
from graph_rewrites import lowering
from graph_rewrites.lowering.cpu import CPU
from graph_rewrites.lowering.pattern import Pattern

PAGE = Path(__file__).parents[1] / "PATTERNS.md"
_ALL = "all"
_LEAST = 0.02  # a gain that is told from noise

Gains = Mapping[str, float]


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--threads", default=2, show_default=True)
@click.option("--budget", default=20.0, show_default=True, help="Seconds for one network.")
@click.option("--exports", type=click.Path(path_type=Path), help="Keep the exported files here.")
def main(networks: tuple[str, ...], threads: int, budget: float, exports: Path | None) -> None:
    """Measure NETWORKS, by default those with a PyTorch module, and write the page."""
    found: dict[str, Gains] = {}
    titles = networks or [t for t, n in NETWORKS.items() if n.zoo in ("torchvision", "timm")]
    with TemporaryDirectory() as scratch:
        for title in titles:
            found[title] = _gains(title, exports or Path(scratch), threads, budget)
            click.echo(f"{title}: {found[title]}", err=True)
    PAGE.write_text("\n".join(_page(found)) + "\n", encoding="utf-8")


def _gains(title: str, exports: Path, threads: int, budget: float) -> Gains:
    """The gain of each pattern that changes the network's lowered gradient."""
    opened = open_network(title, exports)
    model = gr.explanation_model(opened.model, "gradient")
    feeds = {model.graph.input[0].name: opened.noise(1), "target": np.zeros(1, np.int64)}
    whole = _lowered(model, CPU, feeds)
    runs = {_ALL: _run(whole, feeds, threads)}
    for each in CPU:
        left = _lowered(model, [other for other in CPU if other is not each], feeds)
        if left != whole:
            runs[each.name] = _run(left, feeds, threads)
    times = by_turns(runs, budget)
    base = times.pop(_ALL).best
    return {name: timing.best / base for name, timing in times.items()}


def _lowered(
    model: onnx.ModelProto, patterns: Sequence[Pattern], feeds: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    tables = MappingProxyType({**lowering.PROVIDERS, "cpu": tuple(patterns)})
    with patch.object(lowering, "PROVIDERS", tables):
        return gr.lower(model, "cpu", {name: value.shape for name, value in feeds.items()})


def _run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], threads: int) -> Run:
    session = Session(model, threads=threads)
    return lambda: session.run(feeds)


def _page(found: Mapping[str, Gains]) -> Iterator[str]:
    facts = machine()
    yield from (
        "# Patterns of the CPU's lowering",
        "",
        "What each gains in forward and gradient, batch 1: the best time without it over that with",
        f"all. A blank cell: it does not apply, or less than {_LEAST:.0%}. Written by",
        "`python -m benchmarks.speed.patterns`; each function's docstring says why.",
        "",
        f"{facts['processor']}, {facts['cores']} cores.",
        "",
        line("pattern", "form", *found),
        rule(len(found), 2),
    )
    for each in CPU:
        gains = (values.get(each.name, 1.0) for values in found.values())
        cells = ("" if abs(gain - 1) < _LEAST else f"{gain:.2f}" for gain in gains)
        yield line(f"`{each.name}`", _form(each), *cells)


def _form(each: Pattern) -> str:
    """The first sentence of what it says about itself."""
    text = " ".join((each.rewrite.__doc__ or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
