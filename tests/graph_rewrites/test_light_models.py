"""The nine real architectures of the onnx wheel: built, run, and their gradients proven."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graph_rewrites as gr
from graph_rewrites.sharp import directional_error

from .runtime import run
from .samples import LIGHT, light, with_random_weights

LARGE = ("bvlc_alexnet", "vgg19", "zfnet512")


def picture(model: onnx.ModelProto) -> tuple[str, np.ndarray]:
    weights = {tensor.name for tensor in model.graph.initializer}
    (value,) = [value for value in model.graph.input if value.name not in weights]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return value.name, np.random.default_rng(5).normal(size=(1, *shape[1:])).astype(np.float32)


@pytest.mark.parametrize("name", [n for n in LIGHT if n not in LARGE])
def test_the_explanation_model_is_valid_standard_and_runs(name: str) -> None:
    model = with_random_weights(light(name))
    built = gr.explanation_model(model, ("grad_cam", "guided_backprop", "saliency"))
    assert {node.domain for node in built.graph.node} == {""}
    tensor, x = picture(model)
    out = run(built, {tensor: x, "target": np.array([-1])})
    for method in ("grad_cam", "guided_backprop", "saliency"):
        assert np.isfinite(out[f"map/{method}"]).all()
    assert out["map/saliency"].any()


STEPS = (1e-4, 5e-5, 2e-5, 1e-5, 1e-6)
"""The longer ones are for the two with normalisation by random numbers: scores a million times as
large as the slope along one direction leave float64 too few digits at the shorter ones."""


def with_centred_normalisation(model: onnx.ModelProto) -> onnx.ModelProto:
    """Shifts and running means around 0, so that no channel drowns its signal in an offset."""
    rng = np.random.default_rng(1)
    added = {n.input[1] for n in model.graph.node if n.op_type == "Add"}
    centred = {
        name for n in model.graph.node if n.op_type == "BatchNormalization" for name in n.input[2:4]
    } | {n.input[0] for n in model.graph.node if added.intersection(n.output)}
    for tensor in model.graph.initializer:
        if tensor.name in centred:
            value = rng.normal(0, 0.2, tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_gradients_agree_with_central_differences_in_float64(name: str) -> None:
    model = with_centred_normalisation(with_random_weights(light(name), largest=10**9))
    tensor, x = picture(model)
    grads = gr.differentiate(model, wrt=[tensor])
    assert directional_error(grads, {tensor: x}, tensor, directions=2, steps=STEPS) <= 1e-6
