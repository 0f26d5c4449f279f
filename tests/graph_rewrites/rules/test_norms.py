"""Rules of norms, against definitions in float64 where onnx's own evaluator has none or errs.

And the points at which a norm, or a function with an infinite slope, has no derivative.
"""

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.rules import elementary, normalization, pooling, reductions
from graph_rewrites.rules.table import RuleTable
from graph_rewrites.tensor_type import TensorType

from .harness import onnxruntime

RULES = RuleTable.collect(elementary, normalization, pooling, reductions)
INF = np.inf


def forward_and_back(
    text: str, x: np.ndarray, ct: np.ndarray, optimised: bool = True, **others: np.ndarray
) -> list[np.ndarray]:
    """What the runtime makes of one node: its output, and the cotangent of its first input."""
    graph = Graph(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 21]> g {text}'))
    (node,) = graph.nodes
    graph.add_input("ct", TensorType(TensorProto.FLOAT, graph.shape("y")))
    dx, *_ = RULES.get(node.op_type).fn(Emitter(graph, "bwd"), node, ["ct"])
    graph.add_output(dx, TensorType(TensorProto.FLOAT, None))
    run = onnxruntime(graph.export(), optimised=optimised)
    return run({"x": x.astype(np.float32), "ct": ct.astype(np.float32), **others})


def assert_adjoint(
    text: str, function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, optimised: bool
) -> None:
    """The rule against central differences of `function`, which must be what the runtime does."""
    rng = np.random.default_rng(1)
    v, y = rng.standard_normal(x.shape), function(x)
    pushed = (function(x + 1e-5 * v) - function(x - 1e-5 * v)) / 2e-5
    for ct in (pushed, rng.standard_normal(y.shape)):
        result, dx = forward_and_back(text, x, ct, optimised)
        np.testing.assert_allclose(result, y, rtol=1e-5, atol=1e-5)
        error = abs(np.vdot(dx, v) - np.vdot(ct, pushed))
        assert error <= 1e-5 * np.linalg.norm(ct) * np.linalg.norm(pushed)


def lp_pool(x: np.ndarray, p: int, kernel, strides, dilations, pads, ceil) -> np.ndarray:
    """Windows one by one; a last one that would begin in the padding is none."""
    taken = []
    for size, k, s, d, begin, end in zip(
        x.shape[2:], kernel, strides, dilations, pads[:2], pads[2:], strict=True
    ):
        stop = size + end - (k - 1) * d
        if ceil:
            stop = min(stop + s - 1, size)
        starts = range(-begin, stop, s)
        taken.append([[j for j in range(i, i + k * d, d) if 0 <= j < size] for i in starts])
    norms = [
        (np.abs(x[:, :, rows][:, :, :, columns]) ** p).sum((2, 3)) ** (1 / p)
        for rows, columns in itertools.product(*taken)
    ]
    return np.stack(norms, axis=-1).reshape(*x.shape[:2], *map(len, taken))


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sizes", ["7, 6", "H, W"])
@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "pads", "ceil"),
    [
        ([2, 2], [2, 2], [1, 1], [0, 0, 0, 0], 0),
        ([3, 3], [1, 1], [1, 1], [0, 0, 0, 0], 0),
        ([3, 2], [2, 3], [1, 1], [1, 0, 1, 1], 0),
        ([2, 3], [1, 2], [2, 1], [0, 2, 1, 0], 0),
        ([3, 3], [2, 2], [1, 1], [0, 0, 0, 0], 1),
    ],
)
def test_lp_pool_of_any_norm(p, kernel, strides, dilations, pads, ceil, sizes, batch, optimised):
    x = np.random.default_rng(p).standard_normal((batch, 2, 7, 6))
    x += 0.2 * np.sign(x)
    attributes = (
        f"p = {p}, kernel_shape = {kernel}, strides = {strides}, dilations = {dilations}, "
        f"pads = {pads}, ceil_mode = {ceil}"
    )
    text = f"(float[N, 2, {sizes}] x) => (float[N, 2, A, B] y) {{ y = LpPool<{attributes}>(x) }}"
    window = (kernel, strides, dilations, pads, ceil)
    assert_adjoint(text, lambda x: lp_pool(x, p, *window), x, optimised)


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("attribute", ["", "p = 1", "p = 2", "p = 3"])
def test_global_lp_pool_of_any_norm(attribute: str, batch: int, optimised: bool) -> None:
    p = int(attribute[-1:] or 2)
    x = np.random.default_rng(0).standard_normal((batch, 2, 3, 4))
    x += 0.2 * np.sign(x)
    named = f"<{attribute}>" if attribute else ""
    text = f"(float[N, 2, H, W] x) => (float[N, 2, 1, 1] y) {{ y = GlobalLpPool{named}(x) }}"
    axes = {"axis": (2, 3), "keepdims": True}
    assert_adjoint(text, lambda x: (np.abs(x) ** p).sum(**axes) ** (1 / p), x, optimised)


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_vectors_of_either_sign_are_normalised(axis: int, optimised: bool) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 4))
    x += 0.2 * np.sign(x)
    text = "(float[N, 2, 4] x) => (float[N, 2, 4] y) "
    text += f"{{ y = LpNormalization<p = 1, axis = {axis}>(x) }}"
    assert_adjoint(text, lambda x: x / np.abs(x).sum(axis=axis, keepdims=True), x, optimised)


@pytest.mark.parametrize(
    ("node", "x", "y", "expected"),
    [
        ("LpPool<kernel_shape = [2]>(x)", [0, 0, 3, 4], 3, [0, 0, 1 + 0.6, 0.8]),
        ("LpPool<kernel_shape = [2], p = 3>(x)", [0, 0, 0, 2], 3, [0, 0, 0, 1]),
        ("LpPool<kernel_shape = [2], p = 1>(x)", [0, 0, 3, -4], 3, [0, 0, 2, -1]),
        ("GlobalLpPool(x)", [0, 0, 0, 0], 1, [0, 0, 0, 0]),
        ("LpNormalization(x)", [0, 0, 0, 0], 4, [0, 0, 0, 0]),
        ("LpNormalization<p = 1>(x)", [0, 0, 0, 0], 4, [0, 0, 0, 0]),
        ("ReduceL1<keepdims = 1>(x)", [0, -2, 3, 0], 1, [0, -1, 1, 0]),
        ("ReduceProd(x)", [2, 0, 3, 4], 1, [0, 24, 0, 0]),
        ("ReduceProd(x)", [2, 0, 0, 4], 1, [0, 0, 0, 0]),
        ("ReduceLogSumExp(x)", [-INF, 1, -INF, 1], 1, [0, 0.5, 0, 0.5]),
        ("ReduceLogSumExp(x)", [-INF, -INF, -INF, -INF], 1, [0, 0, 0, 0]),
        ("Asin(x)", [1, -1, 0, 0.6], 4, [0, 0, 1, 1.25]),
        ("Acos(x)", [1, -1, 0, 0.6], 4, [0, 0, -1, -1.25]),
        ("Acosh(x)", [1, 1.25, 1, 1], 4, [0, 4 / 3, 0, 0]),
    ],
)
def test_where_there_is_no_derivative(node: str, x: list, y: int, expected: list) -> None:
    whole = y == 1 and node.startswith("Reduce")
    shape = (1, 1, 1) if whole else (1, 1, y)
    text = f"(float[1, 1, 4] x) => (float{list(shape)} y) {{ y = {node} }}"
    _, dx = forward_and_back(text, np.reshape(x, (1, 1, 4)), np.ones(shape))
    np.testing.assert_allclose(dx.ravel(), expected, rtol=1e-6)


def test_unpooling_holds_where_images_are_repeated() -> None:
    """Two cotangents for each image: its indices still count from the first image of all."""
    text = "(float[N, 1, 2] x, int64[N, 1, 2] i) => (float[N, 1, 4] y) "
    text += "{ y = MaxUnpool<kernel_shape = [2], strides = [2]>(x, i) }"
    graph = Graph(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 21]> g {text}'))
    graph.add_input("ct", TensorType(TensorProto.FLOAT, ("M", 1, 4)))
    (node,) = graph.nodes
    rule = RULES.get("MaxUnpool")
    dx, _ = rule.fn(Emitter(graph, "bwd"), node, ["ct"])
    graph.add_output(dx, TensorType(TensorProto.FLOAT, None))
    model = onnx.utils.Extractor(graph.export()).extract_model(["x", "i", "ct"], [dx])
    indices = np.array([[[1, 2]], [[1, 2]], [[4, 7]], [[4, 7]]])
    ct = np.arange(16, dtype=np.float32).reshape(4, 1, 4)
    (dx,) = onnxruntime(model)({"x": np.zeros((4, 1, 2), np.float32), "i": indices, "ct": ct})
    np.testing.assert_array_equal(dx.reshape(4, 2), [[1, 2], [5, 6], [8, 11], [12, 15]])
