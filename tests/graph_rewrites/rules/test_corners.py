"""Corners beyond the case tables: poles, ties of three, axes known at run time, refusals."""

import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.graph import Graph
from graph_rewrites.rules import arithmetic, layout, normalization, reductions
from graph_rewrites.rules.table import RuleTable
from graph_rewrites.tensor_type import TensorType

RULES = RuleTable.collect(arithmetic, layout, normalization, reductions)


def emit(text: str) -> tuple[Graph, list[str]]:
    """A graph of one node, and the names of the cotangents that its rule returns for "ct"."""
    graph = Graph(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 21]> g {text}'))
    (node,) = graph.nodes
    graph.add_input("ct", TensorType(TensorProto.FLOAT, graph.shape("y")))
    others = ["ct" if graph.is_float(name) else None for name in node.outputs[1:]]
    answers = RULES.get(node.op_type).fn(Emitter(graph, "bwd"), node, ["ct", *others])
    return graph, [name for name in answers if name]


def cotangents(text: str, **feeds: list) -> list[np.ndarray]:
    """What the rule returns for a cotangent of ones."""
    graph, names = emit(text)
    for name in names:
        graph.add_output(name, TensorType(TensorProto.FLOAT, None))
    feeds["ct"] = np.ones(graph.shape("y"))
    types = {name: graph.type(name).elem_type for name in feeds}
    data = graph.export().SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    dtype = onnx.helper.tensor_dtype_to_np_dtype
    arrays = {name: np.array(value, dtype(types[name])) for name, value in feeds.items()}
    return session.run(names, arrays)


def test_poles_pass_nothing() -> None:
    (dx,) = cotangents("(float[2] x) => (float[2] y) { y = Sqrt(x) }", x=[0, 4])
    np.testing.assert_array_equal(dx, [0, 0.25])
    dx, dp = cotangents(
        "(float[4] x, float[4] p) => (float[4] y) { y = Pow(x, p) }",
        x=[0, 0, 0, -2],
        p=[0.5, 0, -1, 2],
    )
    np.testing.assert_array_equal(dx, [0, 0, 0, -4])
    np.testing.assert_array_equal(dp, [0, 0, 0, 0])
    (dx,) = cotangents("(float[2, 2] x) => (float[1, 1] y) { y = ReduceL2(x) }", x=[[0, 0], [0, 0]])
    np.testing.assert_array_equal(dx, [[0, 0], [0, 0]])


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_ties_of_three_share_evenly(op: str) -> None:
    text = f"(float[2] a, float[2] b, float[2] c) => (float[2] y) {{ y = {op}(a, b, c) }}"
    for dx in cotangents(text, a=[1, 7], b=[1, 7], c=[1, 7]):
        np.testing.assert_allclose(dx, [1 / 3, 1 / 3], rtol=1e-6)
    reduce = f"(float[1, 4] x) => (float[1, 1] y) {{ y = Reduce{op}(x) }}"
    extreme = 5 if op == "Max" else -5
    (dx,) = cotangents(reduce, x=[[extreme, 0, extreme, extreme]])
    np.testing.assert_allclose(dx, [[1 / 3, 0, 1 / 3, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("ReduceSum", [[1, 1, 1], [1, 1, 1]]),
        ("ReduceMean", [[1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]]),
        ("ReduceMax", [[0, 0, 1], [1, 0, 0]]),
        ("ReduceMin", [[1, 0, 0], [0, 0.5, 0.5]]),
        ("ReduceL2", [[0, 0.6, 0.8], [1, 0, 0]]),
    ],
)
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_axes_may_be_known_at_run_time(op: str, expected: list, keepdims: int, axis: int) -> None:
    y = "float[2, 1] y" if keepdims else "float[2] y"
    text = f"(float[2, 3] x, int64[1] a) => ({y}) {{ y = {op}<keepdims = {keepdims}>(x, a) }}"
    (dx,) = cotangents(text, x=[[0, 3, 4], [8, 0, 0]], a=[axis])
    np.testing.assert_allclose(dx, expected, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_local_response_normalisation_over_any_window(size: int, batch: int) -> None:
    """Against the definition in float64: the runtime runs odd windows alone, the rule every one."""
    rng = np.random.default_rng(size)
    x, ct, v = rng.standard_normal((3, batch, 6, 2, 3))
    alpha, beta, bias = 0.7, 0.6, 1.5

    def response(x: np.ndarray) -> np.ndarray:
        windows = [slice(max(0, c - (size - 1) // 2), c + size // 2 + 1) for c in range(x.shape[1])]
        squares = np.stack([(x[:, window] ** 2).sum(1) for window in windows], axis=1)
        return x / (bias + alpha / size * squares) ** beta

    graph, (dx,) = emit(
        "(float[N, 6, H, W] x) => (float[N, 6, H, W] y) "
        f"{{ y = LRN<size = {size}, alpha = {alpha}, beta = {beta}, bias = {bias}>(x) }}"
    )
    graph.add_output(dx, TensorType(TensorProto.FLOAT, None))
    whole = graph.export()
    backward = onnx.utils.Extractor(whole).extract_model(["x", "y", "ct"], [dx])
    session = ort.InferenceSession(backward.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": x, "y": response(x), "ct": ct}
    (grad,) = session.run(None, {name: value.astype(np.float32) for name, value in feeds.items()})
    pushed = (response(x + 1e-5 * v) - response(x - 1e-5 * v)) / 2e-5
    bar = 1e-5 * np.linalg.norm(ct) * np.linalg.norm(pushed)
    assert abs(np.vdot(grad, v) - np.vdot(ct, pushed)) <= bar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(float[N, 2] x, float[2] s, float[2] b, float[2] m, float[2] v) => (float[N, 2] y) "
            "{ y, mean, variance = BatchNormalization<training_mode = 1>(x, s, b, m, v) }",
            "BatchNormalization.*is in training mode.*export the model for inference",
        ),
        (
            "(float[N, 2] x, float[2] s) => (float[N, 2] y) { y, mean = LayerNormalization(x, s) }",
            "LayerNormalization.*its statistics; write these as ReduceMean",
        ),
        (
            "(float[N, 4] x, bool t) => (float[N, 4] y) { y = Dropout(x, , t) }",
            "Dropout.*is in training mode.*export the model for inference",
        ),
    ],
    ids=["BatchNormalization", "LayerNormalization", "Dropout"],
)
def test_refusals_say_what_to_do(text: str, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError) as caught:
        emit(text)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert "opset 21" in str(caught.value)


def test_constant_slices_become_a_pad() -> None:
    graph, _ = emit(
        "(float[N, 6, H] x) => (float[N, 2, H] y) "
        "<int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {1}> { y = Slice(x, s, e, a) }"
    )
    assert [node.op_type for node in graph.nodes[1:]] == ["Pad"]


def test_an_empty_slice_passes_nothing() -> None:
    (dx,) = cotangents(
        "(float[2, 6] x) => (float[2, 0] y) "
        "<int64[1] s = {4}, int64[1] e = {2}, int64[1] a = {1}> { y = Slice(x, s, e, a) }",
        x=np.ones((2, 6)),
    )
    np.testing.assert_array_equal(dx, np.zeros((2, 6)))
