"""Quantised files: ReLUs that the quantiser folded away, the straight-through estimator, bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

import graph_rewrites as gr
from graph_rewrites.sharp import directional_error

from .runtime import run

SIZE = 32


def small_cnn(seed: int = 3) -> onnx.ModelProto:
    """Conv-ReLU, Conv-ReLU6, max-pool, Conv-ReLU, average, dense: three ReLUs, five classes."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)),
        "w2": rng.normal(0, 0.25, (12, 8, 3, 3)),
        "w3": rng.normal(0, 0.2, (16, 12, 3, 3)),
        "b1": rng.normal(0, 0.1, 8),
        "b2": rng.normal(0, 0.1, 12),
        "b3": rng.normal(0, 0.1, 16),
        "wf": rng.normal(0, 0.5, (16, 5)),
    }
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    tensors += [
        numpy_helper.from_array(np.array(v, np.float32), k) for k, v in (("lo", 0.0), ("hi", 6.0))
    ]
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", **pads),
        helper.make_node("Clip", ["c2", "lo", "hi"], ["r2"], name="relu2"),
        helper.make_node(
            "MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["p", "w3", "b3"], ["c3"], name="conv3", **pads),
        helper.make_node("Relu", ["c3"], ["r3"], name="relu3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "wf"], ["scores"], name="dense"),
    ]
    shape = ["N", 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pictures(count: int, seed: int) -> np.ndarray:
    """Smooth random pictures."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (count, 3, 8, 8))
    return np.kron(coarse, np.ones((1, 1, 4, 4))).astype(np.float32)


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.rows = iter(pictures(24, seed=1))

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self.rows, None)
        return None if row is None else {"image": row[None]}


def quantised(folder: Path, activations: QuantType) -> onnx.ModelProto:
    source, target = folder / "float.onnx", folder / "int.onnx"
    onnx.save(small_cnn(), source)
    quantize_static(
        source,
        target,
        Calibration(),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(target)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(v.ravel())) for v in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def pixel_map(model: onnx.ModelProto, relu: str, x: np.ndarray) -> np.ndarray:
    grads = gr.differentiate(model, wrt=["image"], relu=relu)
    ct = np.zeros((len(x), 5), np.float32)
    ct[:, 2] = 1
    return run(grads, {"image": x, "cotangent": ct})["grad/image"]


@pytest.fixture(scope="module", params=[QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
def integer_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return quantised(tmp_path_factory.mktemp("quantised"), request.param)


def test_every_folded_relu_is_found_and_no_other(integer_model: onnx.ModelProto) -> None:
    assert not {"Relu", "Clip"}.intersection(n.op_type for n in integer_model.graph.node)
    grads = gr.differentiate(integer_model, wrt=["image"], relu="guided")
    activations = gr.coverage(grads).activations
    assert [(a.kind, a.rule) for a in activations] == [("folded", "guided")] * 3


def test_guided_differs_from_gradient_and_agrees_with_the_float_twin(
    integer_model: onnx.ModelProto,
) -> None:
    x = pictures(8, seed=2)
    guided, gradient = (pixel_map(integer_model, relu, x) for relu in ("guided", "gradient"))
    assert np.linalg.norm(guided - gradient) > 0.1 * np.linalg.norm(gradient)
    twin = pixel_map(small_cnn(), "guided", x)
    figures = [spearman(a, b) for a, b in zip(guided, twin, strict=True)]
    assert min(figures) >= 0.9, figures


def test_the_artefacts_own_outputs_are_bit_equal(integer_model: onnx.ModelProto) -> None:
    x = pictures(4, seed=5)
    expected = run(integer_model, {"image": x})["scores"]
    explained = gr.explanation_model(integer_model, "guided_backprop")
    out = run(explained, {"image": x, "target": np.full(4, -1)})
    np.testing.assert_array_equal(out["scores"], expected)


@pytest.mark.parametrize("per_channel", [False, True])
def test_an_integer_picture_is_differentiated_per_step(per_channel: bool) -> None:
    scale = np.array([0.5, 0.25, 2.0] if per_channel else 0.5, np.float32)
    zero = np.zeros_like(scale, np.uint8)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["bytes"], ["chw"], perm=[0, 3, 1, 2]),
            helper.make_node("DequantizeLinear", ["chw", "s", "z"], ["x"], axis=1),
            helper.make_node("Mul", ["x", "x"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["N", 2, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 2, 2])],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    grads = gr.differentiate(model, wrt=["bytes"], of="y")
    got = run(grads, {"bytes": x, "cotangent": np.ones((2, 3, 2, 2), np.float32)})["grad/bytes"]
    np.testing.assert_allclose(got, 2 * x.astype(np.float32) * scale**2, rtol=1e-6)


def test_the_gradient_is_exact_for_the_function_that_the_file_approximates(
    integer_model: onnx.ModelProto,
) -> None:
    """Unrounded, saturating at the folded ReLUs only: central differences agree in float64."""
    grads = gr.differentiate(integer_model, wrt=["image"])
    error = directional_error(grads, {"image": pictures(1, seed=7)}, "image")
    assert error <= 1e-6
