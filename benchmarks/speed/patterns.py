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
from benchmarks.speed.networks import NETWORKS, Network, Opened, open_network
from benchmarks.speed.timing import Run, by_turns
from graph_rewrites import lowering
from graph_rewrites.lowering.cpu import CPU
from graph_rewrites.lowering.pattern import Pattern

PAGE = Path(__file__).parents[1] / "PATTERNS.md"
_ALL = "all"
_NONE = "none"
_FACTORS = "both factors"
_LEFT_OUT = {each.name: {each.name} for each in CPU} | {
    _FACTORS: {"factor_before_mask", "factor_in_weight"}  # one stands in for the other
}
_METHODS = {"gradient": "Forward and gradient", "grad_cam": "Grad-CAM of the last layer"}
_NETWORKS = {
    **{title: network for title, network in NETWORKS.items() if network.zoo != "keras"},
    "ResNet-10-T": Network("ResNet-10-T", "timm/resnet10t"),
    "ResNet-50, 2017": Network("ResNet-50, 2017", "light/resnet50"),
}
_LEAST = 0.02  # a gain that is told from noise

Gains = Mapping[str, float]
Found = Mapping[str, Gains]
"""The gains on each network."""


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--threads", default=2, show_default=True)
@click.option("--budget", default=20.0, show_default=True, help="Seconds for one network.")
@click.option("--exports", type=click.Path(path_type=Path), help="Keep the exported files here.")
def main(networks: tuple[str, ...], threads: int, budget: float, exports: Path | None) -> None:
    """Measure NETWORKS, or all, and write the page; the assets are in ONNX_ANALYZER_SHARED.

    Beside those of `benchmarks.speed` but Keras's: a network with average pools in its shortcuts,
    and a file whose exporter left the normalisation behind the convolutions as it was.
    """
    found: dict[str, dict[str, Gains]] = {method: {} for method in _METHODS}
    with TemporaryDirectory() as scratch:
        for title in networks or _NETWORKS:
            opened = open_network(_NETWORKS[title], exports or Path(scratch))
            for method in _METHODS:
                found[method][title] = _gains(opened, method, threads, budget)
                click.echo(f"{title}, {method}: {found[method][title]}", err=True)
    PAGE.write_text("\n".join(_page(found)) + "\n", encoding="utf-8")


def _gains(opened: Opened, method: str, threads: int, budget: float) -> Gains:
    """The gain of each pattern that changes what is run for one picture."""
    model = gr.explanation_model(gr.canonicalize(opened.model), method)
    feeds = {model.graph.input[0].name: opened.noise(1), "target": np.zeros(1, np.int64)}
    whole = _lowered(model, CPU, feeds)
    runs = {name: _run(whole, feeds, threads) for name in (_ALL, _NONE)}
    for title, names in _LEFT_OUT.items():
        left = _lowered(model, [each for each in CPU if each.name not in names], feeds)
        if left != whole:
            runs[title] = _run(left, feeds, threads)
    times = by_turns(runs, budget)
    base = times.pop(_ALL).median
    return {name: timing.median / base for name, timing in times.items()}


def _lowered(
    model: onnx.ModelProto, patterns: Sequence[Pattern], feeds: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    tables = MappingProxyType({**lowering.PROVIDERS, "cpu": tuple(patterns)})
    with patch.object(lowering, "PROVIDERS", tables):
        return gr.lower(model, "cpu", {name: value.shape for name, value in feeds.items()})


def _run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], threads: int) -> Run:
    session = Session(model, threads=threads)
    return lambda: session.run(feeds)


def _page(found: Mapping[str, Found]) -> Iterator[str]:
    facts = machine()
    yield from (
        "# Patterns of the CPU's lowering",
        "",
        "What each gains for one picture: the median time without it over that with all.",
        f"A dash: less than {_LEAST:.0%}; a blank cell: it does not apply. Written by",
        "`python -m benchmarks.speed.patterns`; each function's docstring says why.",
        "",
        f"{facts['processor']}, {facts['cores']} cores.",
    )
    for method, title in _METHODS.items():
        yield from ("", f"## {title}", "", *_table(found[method]))


def _table(found: Found) -> Iterator[str]:
    yield line("pattern", "form", *found)
    yield rule(len(found), 2)
    both = "`factor_before_mask` and `factor_in_weight`: each does part of the other's work."
    forms = {f"`{each.name}`": (each.name, _form(each)) for each in CPU} | {
        _FACTORS: (_FACTORS, both),
        _NONE: (_NONE, "Nothing left out, the same model again: what noise is."),
    }
    for title, (name, form) in forms.items():
        if any(name in gains for gains in found.values()):
            yield line(title, form, *_cells(found, name))


def _cells(found: Found, name: str) -> Iterator[str]:
    for gains in found.values():
        gain = gains.get(name)
        yield "" if gain is None else "–" if abs(gain - 1) < _LEAST else f"{gain:.2f}"


def _form(each: Pattern) -> str:
    """The first sentence of what it says about itself."""
    text = " ".join((each.rewrite.__doc__ or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
