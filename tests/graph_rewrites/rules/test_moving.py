"""Rules of layout, indexing, resampling and contraction beyond the case tables."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

import graph_rewrites as gr
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.graph import Graph
from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.tensor_type import TensorType
from graph_rewrites.testing import directional_error

HEADER = '<ir_version: 9, opset_import: ["": 21]> g '


def backward_ops(text: str) -> list[str]:
    """The operators that the rule of the one node in `text` emits."""
    graph = Graph(onnx.parser.parse_model(HEADER + text))
    (node,) = graph.nodes
    graph.add_input("ct", TensorType(TensorProto.FLOAT, graph.shape("y")))
    DEFAULT_RULES.get(node.op_type).fn(Emitter(graph, "bwd"), node, ["ct"])
    return [node.op_type for node in graph.nodes[1:]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(float[N, 4, 4] x, int64[2] b) => (float[N, 1, 4, 4] y) <int64[2] s = {4, 4}> "
            "{ y = Col2Im<strides = [2, 2]>(x, s, b) }",
            "Col2Im.*size known at run time.*block_shape",
        ),
        (
            "(float[N, 4] x, int64[1] a) => (float[N, 7] y) <int64[2] p = {1, 2}> "
            '{ y = Pad<mode = "edge">(x, p, , a) }',
            "Pad.*axes known at run time.*constant axes",
        ),
        (
            "(float[N, 1, 4, 4] x) => (float[N, 1, 8, 8] y) "
            "<float[4] r = {0, 0, 1, 1}, int64[2] s = {8, 8}> { y = Resize<axes = [2, 3], "
            'coordinate_transformation_mode = "tf_crop_and_resize", '
            'keep_aspect_ratio_policy = "not_larger">(x, r, , s) }',
            "Resize.*crops and keeps the aspect ratio.*'stretch'",
        ),
    ],
    ids=["Col2Im", "Pad", "Resize"],
)
def test_refusals_say_what_to_do(text: str, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError) as caught:
        backward_ops(text)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert "opset 21" in str(caught.value)


NEAREST = (
    "(float[N, 2, H, W] x) => (float[N, 2, a, b] y) <float[4] s = {1, 1, 2, 3}> "
    '{ y = Resize<coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(x, , s) }'
)


def test_repeated_pixels_become_window_sums() -> None:
    assert backward_ops(NEAREST) == ["AveragePool", "Mul"]


def test_other_roundings_do_not() -> None:
    assert "AveragePool" not in backward_ops(NEAREST.replace('"floor"', '"ceil"'))
    assert "AveragePool" not in backward_ops(NEAREST.replace("1, 1, 2, 3", "1, 1, 2, 1.5"))


def test_matrices_of_fixed_sizes_are_worked_out_when_a_model_is_loaded(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        HEADER + "(float[N, 2, 5, 7] x) => (float[N, 2, 8, 4] y) "
        '<int64[2] s = {8, 4}> { y = Resize<mode = "linear", axes = [2, 3]>(x, , , s) }'
    )
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    data = gr.differentiate(model, wrt="x", of="y").SerializeToString()
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert sorted(node.op_type for node in loaded.graph.node) == ["MatMul", "MatMul", "Resize"]


NETWORK = (
    "(float[N, 1, 6, 6] x) => (float[N, 4] y) "
    "<int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}, "
    "int64[2] s = {9, 5}, float[4] t = {1, 1, 2, 2}> {"
    '  padded = Pad<mode = "reflect">(x, p)'
    "  a = Conv(padded, w)"
    "  b = Relu(a)"
    '  c = Resize<mode = "linear", axes = [2, 3]>(b, , , s)'
    "  d = Resize(c, , t)"
    '  e = DepthToSpace<blocksize = 2, mode = "CRD">(d)'
    "  f = SpaceToDepth<blocksize = 2>(e)"
    "  pooled = GlobalAveragePool(f)"
    "  flat = Flatten(pooled)"
    '  y = Einsum<equation = "nc,ck->nk">(flat, v)'
    "}"
)


@pytest.fixture
def network() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(HEADER + NETWORK)
    for name, shape in [("w", (4, 1, 3, 3)), ("v", (4, 4))]:
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def test_several_targets_at_once(network: onnx.ModelProto) -> None:
    """The matrices are the same for all images and all targets."""
    x = np.random.default_rng(4).standard_normal((3, 1, 6, 6)).astype(np.float32)
    targets = np.array([[0, 1], [3, 2], [1, 1]], np.int64)
    both = gr.explanation_model(network, method="gradient", targets=2)
    one = gr.explanation_model(network, method="gradient")
    together = run(both, x, targets)
    for column in range(2):
        alone = run(one, x, targets[:, column])
        np.testing.assert_allclose(together[:, column], alone, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_network(network: onnx.ModelProto) -> None:
    x = np.random.default_rng(5).standard_normal((2, 1, 6, 6)).astype(np.float32)
    grads = gr.differentiate(network, wrt="x")
    assert directional_error(grads, {"x": x}, wrt="x") < 1e-6


def run(model: onnx.ModelProto, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run(["map/gradient"], {"x": x, "target": target})
    return values
