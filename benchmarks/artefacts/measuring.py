"""One artefact beside the float32 original that it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

import graph_rewrites as gr
from benchmarks.artefacts.making import ARTEFACTS, noise, original_of
from benchmarks.conformance.networks import build
from graph_rewrites.sharp import directional_error
from tests.oracles.onnx_gradients import INPUT, OUTPUT, resized
from tests.oracles.passes import distance

Array = np.ndarray
Figures = dict[str, Any]

BATCHES, BATCH = 3, 2
METHODS = (
    "saliency", "gradient", "deconvnet", "guided_backprop", "grad_cam", "guided_grad_cam",
)  # fmt: skip
SHARP_SIZE = 64
_INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")


@dataclass(frozen=True)
class _Run:
    """What one session made of all pictures: outputs by name, and its optimised operators."""

    outputs: dict[str, Array]
    operators: Counter[str]


def measure(network: str, artefact: str, size: int, folder: Path) -> Figures:
    """Make an artefact of a torchvision network, explain it and compare it with the original.

    Args:
        network: its name in torchvision.
        artefact: a key of `ARTEFACTS`.
        size: height and width of the pictures.
        folder: for files; the float32 original is kept there for the next artefact.

    Returns:
        The figures of one row; distances are ‖Δ‖/‖g‖, the median over the pictures.
    """
    torch.set_num_threads(2)
    net, _ = build(f"torchvision/{network}")
    original, path = original_of(net, folder, network, size), folder / "artefact.onnx"
    ARTEFACTS[artefact](net, original, path, size)
    model, twin = onnx.load(path), onnx.load(original)
    images = [noise(BATCH, size, seed) for seed in range(BATCHES)]
    targets = np.full((BATCHES, BATCH), -1)
    theirs = _run(gr.explanation_model(twin, METHODS), images, targets, folder)
    targets = theirs.outputs["target/used"].reshape(BATCHES, BATCH)
    explained = gr.explanation_model(model, METHODS)
    onnx.checker.check_model(explained, full_check=True)
    ours = _run(explained, images, targets, folder)
    return {
        "network": network,
        "artefact": artefact,
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "nodes": len(model.graph.node),
        "explained": len(explained.graph.node),
        "methods": sum(bool(np.isfinite(ours.outputs[f"map/{m}"]).all()) for m in METHODS),
        **_activations(model, twin),
        **_against_itself(model, explained, ours, images, targets, folder),
        **_against_the_original(ours.outputs, theirs.outputs),
        **_against_the_framework(net, ours.outputs["map/gradient"], images, targets),
        "sharp": _sharp(model),
    }


def _activations(model: onnx.ModelProto, twin: onnx.ModelProto) -> Figures:
    """How many ReLUs and other activations coverage lists, here and in the original."""
    figures: Figures = {}
    for label, file in (("", model), ("original_", twin)):
        found = gr.coverage(gr.differentiate(file, wrt=INPUT, relu="guided"))
        figures[f"{label}relus"] = len(found.relus)
        figures[f"{label}folded"] = sum(a.kind == "folded" for a in found.relus)
        figures[f"{label}smooth"] = len(found.activations) - len(found.relus)
    return figures


def _against_itself(
    model: onnx.ModelProto,
    explained: onnx.ModelProto,
    ours: _Run,
    images: list[Array],
    targets: Array,
    folder: Path,
) -> Figures:
    """The artefact's own scores beside those of its explanation model, and its integer kernels."""
    own = _run(model, images, targets, folder)
    scores, kept = (run.outputs[OUTPUT].astype(np.float64) for run in (own, ours))
    plain = [
        _run(file, images[:1], targets, folder, optimise=False).outputs[OUTPUT]
        for file in (model, explained)
    ]
    step = _last_step(model)
    difference = float(np.abs(scores - kept).max())
    return {
        "integer_convolutions": sum(own.operators[op] for op in _INTEGER_CONVOLUTIONS),
        "integer_convolutions_kept": sum(ours.operators[op] for op in _INTEGER_CONVOLUTIONS),
        "scores_off": difference / float(np.abs(scores).max()),
        "steps_off": None if step is None else difference / step,
        "same_arg_max": int((scores.argmax(1) == kept.argmax(1)).sum()),
        "bit_equal": bool(np.array_equal(scores, kept)),
        "bit_equal_unoptimised": bool(np.array_equal(plain[0], plain[1])),
    }


def _last_step(model: onnx.ModelProto) -> float | None:
    """The scale in which the scores are counted; None where they are no quantised numbers."""
    (node,) = (node for node in model.graph.node if OUTPUT in node.output)
    if node.op_type != "DequantizeLinear":
        return None
    (scale,) = (w for w in model.graph.initializer if w.name == node.input[1])
    return float(onnx.numpy_helper.to_array(scale))


def _against_the_original(ours: dict[str, Array], theirs: dict[str, Array]) -> Figures:
    cam = "map/grad_cam/raw"
    return {
        "gradient": _distance(ours["map/gradient"], theirs["map/gradient"]),
        "scores": _distance(ours[OUTPUT], theirs[OUTPUT]),
        "cam_spearman": _each(_spearman, ours[cam], theirs[cam]),
        "cam_cosine": _each(_cosine, ours[cam], theirs[cam]),
        "saliency_spearman": _each(_spearman, ours["map/saliency"], theirs["map/saliency"]),
        "guided_spearman": _each(
            _spearman, ours["map/guided_backprop"], theirs["map/guided_backprop"]
        ),
    }


def _against_the_framework(
    net: nn.Module, ours: Array, images: list[Array], targets: Array
) -> Figures:
    """The distance from PyTorch's float64 gradient, and how far its own float32 one is off."""
    own = _framework_gradients(net, images, targets)
    truth = _framework_gradients(net.double(), images, targets)
    off = [distance(a, b) for a, b in zip(own, truth, strict=True)]
    return {"framework": _distance(ours, truth), "framework_own": float(max(off))}


def _framework_gradients(net: nn.Module, images: list[Array], targets: Array) -> Array:
    dtype = next(net.parameters()).dtype
    rows = []
    for batch, classes in zip(images, targets, strict=True):
        x = torch.tensor(batch, dtype=dtype, requires_grad=True)
        total = net(x)[range(BATCH), classes.tolist()].sum()
        rows.append(torch.autograd.grad(total, x)[0].double().numpy())
    return np.concatenate(rows)


def _sharp(model: onnx.ModelProto) -> float:
    """DESIGN's sharp figure, on a small picture: none of these graphs holds a size."""
    grads = gr.differentiate(resized(model, SHARP_SIZE), wrt=INPUT)
    image = noise(1, SHARP_SIZE, seed=9)
    return directional_error(grads, {INPUT: image}, INPUT, directions=2)


# -- sessions and distances ----------------------------------------------------------------------


def _run(
    model: onnx.ModelProto,
    images: list[Array],
    targets: Array,
    folder: Path,
    optimise: bool = True,
) -> _Run:
    """All batches through one session; `targets` where the model asks for them."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimised = onnx.load(options.optimized_model_filepath, load_external_data=False)
    names = [output.name for output in session.get_outputs()]
    half = session.get_inputs()[0].type == "tensor(float16)"
    asks = any(value.name == "target" for value in session.get_inputs())
    rows = []
    for batch, wanted in zip(images, targets, strict=False):
        feeds = {INPUT: batch.astype(np.float16) if half else batch}
        rows.append(session.run(names, {**feeds, "target": wanted} if asks else feeds))
    columns = zip(*rows, strict=True)
    outputs = {name: np.concatenate(part) for name, part in zip(names, columns, strict=True)}
    return _Run(outputs, Counter(node.op_type for node in optimised.graph.node))


def _distance(values: Array, truth: Array) -> float:
    """‖Δ‖/‖g‖ of each picture, the median."""
    return _each(distance, values, truth)


def _each(figure: Callable[[Array, Array], float], values: Array, others: Array) -> float:
    """A figure of each picture's two arrays, the median over the pictures."""
    pairs = zip(values.astype(np.float64), others.astype(np.float64), strict=True)
    return float(np.median([figure(a.ravel(), b.ravel()) for a, b in pairs]))


def _spearman(a: Array, b: Array) -> float:
    """The correlation of the ranks; equal values share theirs."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - counts / 2)[place]
    return ranks


def _cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
