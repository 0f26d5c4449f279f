"""The findings of `inspect` as text, in the order in which a person asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from analyzer.cli.terminal import heading, put, put_table

NAME_WIDTH = 44


def put_text(findings: Mapping[str, Any]) -> None:
    """Print what `inspect` found; names are made printable on the way."""
    heading(f"{findings['model']}  sha256 {findings['sha256'][:16]}…")
    put_table(_rows(findings))
    if findings["layers"] is not None:
        heading("Layers for a CAM, the default first: index, path, tensor")
        put_table(_layer(layer) for layer in findings["layers"])
    heading("Operators")
    put_table((o["operator"], o["count"], o["verdict"]) for o in findings["operators"])
    if findings["activations"] is not None:
        _put_activations(findings["activations"])


def _put_activations(activations: Mapping[str, Any]) -> None:
    heading(f"Activations and their rule in {activations['method']}")
    rules = activations["rules"]
    put_table((a["op_type"], _cut(a["node"] or a["tensor"]), a["kind"], a["rule"]) for a in rules)
    tally = Counter(f"{a['kind']}: {a['rule']}" for a in rules)
    put(f"  in all: {', '.join(f'{n} {kind}' for kind, n in sorted(tally.items())) or 'none'}")


def _layer(layer: Mapping[str, Any]) -> tuple[str, ...]:
    steps = layer["stride"]
    stride = f"stride {_shape(None if steps is None else map(_step, steps))}"
    names = (str(layer["index"]), _cut(layer["path"]), _cut(layer["tensor"]))
    return *names, _shape(layer["shape"]), stride, "default" if layer["default"] else ""


def _step(pixels: float) -> str:
    return f"{pixels:.3g}" if isinstance(pixels, float) else str(pixels)


def _cut(name: str) -> str:
    """A long name without its middle; --format json has it whole."""
    half = NAME_WIDTH // 2
    return name if len(name) <= NAME_WIDTH else f"{name[: half - 1]}…{name[-half:]}"


def _rows(findings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for value in findings["inputs"]:
        yield "input", _value(value)
    for value in findings["outputs"]:
        yield "output", f"{_value(value)}  {_how(value)}"
    image, scores, batch = findings["image"], findings["scores"], findings["batch"]
    size = " × ".join("any" if n is None else str(n) for n in image["size"])
    yield "image", f"{image['layout']}, {image['channels']} channels, {size}"
    yield "preprocessing", _preprocessing(findings["preprocess"])
    if batch is not None:
        yield "batch", f"{'free' if batch['free'] else 'fixed'}: {batch['reason']}"
    if scores is not None:
        yield "scores", _scores(scores)
        names = f"{scores['labels']} known" if scores["labels"] else "none: give --labels"
        yield "class names", names
    if findings["quantised"]:
        yield "quantised", "forward in the file's own arithmetic, backward straight through"
    if findings["widened"]:
        yield "16-bit floats", "computed in float32"


def _value(value: Mapping[str, Any]) -> str:
    return f"{value['name']}  {value['dtype']} {_shape(value['shape'])}"


def _how(output: Mapping[str, Any]) -> str:
    """How an output can be explained."""
    if not output["objectives"]:
        return "(not explained)"
    return f"(explained by {', '.join(output['objectives'])})"


def _scores(scores: Mapping[str, Any]) -> str:
    behind = f", behind it: {', '.join(scores['peeled'])}" if scores["peeled"] else ""
    where = f"{scores['tensor']}, for output {scores['output']}"
    places = scores["position_axes"]
    at = f", at places on axes {', '.join(map(str, places))}" if places else ""
    return f"{where}, {scores['classes']} classes on axis {scores['class_axis']}{at}{behind}"


def _preprocessing(known: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{key} {_short(value)}" for key, value in known.items() if key not in ("known", "origin")
    )
    doubt = "" if known["known"] else " (a guess: say --preprocess)"
    return f"{known['origin']}{doubt}: {values}"


def _shape(sizes: Iterable[object] | int | None) -> str:
    if sizes is None:
        return "unknown"
    if isinstance(sizes, int):
        return str(sizes)
    return " × ".join("?" if size is None else str(size) for size in sizes)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "[" + ", ".join(map(_short, value)) + "]" if isinstance(value, list) else str(value)
