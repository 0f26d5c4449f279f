"""`onnx-analyzer inspect MODEL`: before any run, what a model is and what it lets explain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from analyzer.cli import options
from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.inspect_text import put_text
from analyzer.cli.terminal import complain, put_json
from analyzer.errors import ModelRejectedError
from analyzer.methods import METHODS

if TYPE_CHECKING:
    from analyzer import Analyzer

SCHEMA_VERSION = 1
T = TypeVar("T")


@click.command("inspect", short_help="Say what can be explained in a model.")
@options.model
@click.option(
    "-m",
    "--method",
    type=click.Choice(list(METHODS)),
    default="guided_backprop",
    show_default=True,
    help="The method whose rules the list of activations shows.",
)
@options.explained
@options.preprocess
@options.labels
@options.output_format("text", "json")
@options.debug
def command(
    model: Path,
    method: str,
    explained: str | None,
    preprocess: str | None,
    labels: str | None,
    form: str,
) -> ExitCode:
    """Say what MODEL is and what can be explained in it.

    Its inputs and what is known of their preprocessing, its outputs and how each of them can be
    explained, whether the batch is free, the scores that are explained, the layers to choose from,
    every operator with its verdict and every activation with its rule. The exit code is 4 where
    an operator stands in the way.
    """
    import analyzer

    loaded = analyzer.load(model, preprocess=preprocess, labels=labels)
    findings = _findings(loaded, method, explained)
    if form == "json":
        put_json(findings, indent=2)
    else:
        put_text(findings)
    for obstacle in findings["obstacles"]:
        complain(obstacle)
    return ExitCode.MODEL_REJECTED if findings["obstacles"] else ExitCode.OK


def _findings(loaded: Analyzer, method: str, explained: str | None) -> dict[str, Any]:
    """Everything that `inspect` says, as plain values; what an obstacle hides is null."""
    obstacles: list[str] = []

    def attempt(find: Callable[[], T]) -> T | None:
        try:
            return find()
        except ModelRejectedError as error:
            obstacles.extend([str(error)] if str(error) not in obstacles else [])
            return None

    outputs = [_output(loaded, o.name, o.dtype, o.shape) for o in loaded.outputs]
    if explained is None and not _has_default(loaded):
        explained = next((o["name"] for o in outputs if o["objectives"]), None)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": loaded.name,
        "sha256": loaded.sha256,
        "inputs": [_value(i.name, i.dtype, i.shape) for i in loaded.inputs],
        "outputs": outputs,
        "image": _image(loaded),
        "preprocess": {
            "known": loaded.preprocess_origin != "assumed",
            "origin": loaded.preprocess_origin,
            **loaded.preprocess.as_dict(),
        },
        "quantised": loaded.quantised,
        "widened": loaded.widened,
        "scores": attempt(lambda: _scores(loaded, explained)),
        "layers": attempt(lambda: _layers(loaded, explained)),
        "operators": _operators(loaded),
        "activations": attempt(lambda: _activations(loaded, method, explained)),
        "batch": attempt(lambda: {"free": loaded.batch == "free", "reason": loaded.batch_reason}),
        "obstacles": obstacles,
    }


def _value(name: str, dtype: str, shape: tuple[int | str, ...] | None) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": None if shape is None else list(shape)}


def _output(
    loaded: Analyzer, name: str, dtype: str, shape: tuple[int | str, ...] | None
) -> dict[str, Any]:
    """An output and the objectives under which it can be explained, or why it cannot."""
    objectives, reason = list[str](), None
    try:
        scores = loaded.explained(name).scores
    except ModelRejectedError as error:
        reason = str(error)
    else:
        objectives = {0: ["class"], 2: ["mask", "box"]}.get(len(scores.position_axes), ["box"])
        if scores.position_axes or scores.classes > 2:
            objectives = [*objectives, "similarity"]
    return {**_value(name, dtype, shape), "objectives": objectives, "reason": reason}


def _has_default(loaded: Analyzer) -> bool:
    """Whether something is explained where nothing is named."""
    try:
        return bool(loaded.explained())
    except ModelRejectedError:
        return False


def _image(loaded: Analyzer) -> dict[str, Any]:
    image = loaded.image
    size = [image.height, image.width]
    return {
        "input": image.name,
        "layout": image.layout,
        "channels": image.channels,
        "size": size,
    }


def _scores(loaded: Analyzer, explained: str | None) -> dict[str, Any]:
    found = loaded.explained(explained)
    scores = found.scores
    return {
        "tensor": scores.tensor,
        "output": scores.output,
        "objective": found.objective,
        "class_axis": scores.class_axis,
        "position_axes": list(scores.position_axes),
        "classes": found.classes.count,
        "peeled": list(scores.peeled),
        "labels": len(found.classes.labels) if found.classes.labels is not None else None,
    }


def _layers(loaded: Analyzer, explained: str | None) -> list[dict[str, Any]]:
    """The layers a CAM can use: the default first, then from the scores back to the picture."""
    layers = loaded.layers if explained is None else loaded.explained(explained).layers
    default = [layer for layer in layers if layer.default]
    others = [layer for layer in reversed(layers) if not layer.default]
    return [
        {
            "index": layer.index,
            "path": layer.path,
            "tensor": layer.tensor,
            "shape": list(layer.shape),
            "stride": layer.stride,
            "default": layer.default,
        }
        for layer in (*default, *others)
    ]


def _activations(loaded: Analyzer, method: str, explained: str | None) -> dict[str, Any]:
    rules = loaded.coverage(method, explained).as_dict()["activations"]
    return {"method": method, "rules": rules}


def _operators(loaded: Analyzer) -> list[dict[str, Any]]:
    """Every operator of the canonical graph: how often it occurs and what the sweep does at it."""
    counts = Counter((node.domain, node.op_type) for node in loaded.model.graph.node)
    return [
        {
            "operator": f"{domain}.{op_type}" if domain else op_type,
            "count": counts[domain, op_type],
            "verdict": _verdict(domain, op_type),
        }
        for domain, op_type in sorted(counts)
    ]


def _verdict(domain: str, op_type: str) -> str:
    from graph_rewrites.operators import verdict

    return verdict(op_type)[0] if domain in ("", "ai.onnx") else "missing"
