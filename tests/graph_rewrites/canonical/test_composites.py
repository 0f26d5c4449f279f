"""Operators that are taken apart compute the same as the runtime makes of them."""

import numpy as np
import onnx
import pytest

from graph_rewrites.canonical.composites import COMPOSITES, bring_back, set_aside
from graph_rewrites.canonical.decompose import decompose
from graph_rewrites.canonical.opset import convert_opset
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.graph import Graph
from tests.graph_rewrites.rules.harness import onnxruntime
from tests.graph_rewrites.samples import graph_of

IMAGES = np.random.default_rng(0).standard_normal((3, 6, 4, 5)).astype(np.float32)
CASES = [
    (18, "float[3] s, float[3] b", "GroupNormalization<num_groups = 3>(x, s, b)"),
    (20, "float[2] s, float[2] b", "GroupNormalization<num_groups = 2, epsilon = 0.5>(x, s, b)"),
    (21, "float[6] s, float[6] b", "GroupNormalization<num_groups = 3>(x, s, b)"),
    (23, "float[6] s, float[6] b", "GroupNormalization<num_groups = 1, epsilon = 0.5>(x, s, b)"),
    (21, "float[6] s, float[6] b", "GroupNormalization<num_groups = 6>(x, s, b)"),
    (9, "", "MeanVarianceNormalization(x)"),
    (13, "", "MeanVarianceNormalization<axes = [2, 3]>(x)"),
    (24, "", "MeanVarianceNormalization<axes = [1, 2, -1]>(x)"),
    (23, "float[5] s", "RMSNormalization(x, s)"),
    (23, "float[4, 5] s", "RMSNormalization<axis = 2, epsilon = 0.5>(x, s)"),
    (24, "float[6, 1, 5] s", "RMSNormalization<axis = -3>(x, s)"),
    (24, "", "Swish(x)"),
    (24, "", "Swish<alpha = 1.5>(x)"),
    (18, "float[1] s", "CastLike(x, s)"),
    (24, "float[1] s", "CastLike(x, s)"),
]
ELSEWHERE = {"Attention", "RotaryEmbedding", "TensorScatter"}  # test_attention.py


def parse(opset: int, given: str, node: str) -> onnx.ModelProto:
    """The operator behind another one of its kind, so that its input has no known type either."""
    inputs = ", ".join(["float[N, 6, H, W] x", *filter(None, [given])])
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => (float[N, 6, H, W] z) '
        f"{{ y = {node} z = {node.replace('(x', '(y')} }}"
    )


def taken_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    set_aside(copy)
    copy = convert_opset(copy)
    bring_back(copy)
    graph = Graph(copy)
    decompose(graph, COMPOSITES)
    return graph.export()


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize(("opset", "given", "node"), CASES)
def test_parts_compute_the_whole(opset: int, given: str, node: str, optimised: bool) -> None:
    model = parse(opset, given, node)
    parts = taken_apart(model)
    onnx.checker.check_model(parts, full_check=True)
    assert not {("", n.op_type) for n in parts.graph.node} & set(COMPOSITES)
    assert [entry.domain for entry in parts.opset_import] == [""]
    rng = np.random.default_rng(1)
    feeds = {"x": IMAGES}
    for value in model.graph.input[1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        feeds[value.name] = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    (expected,) = onnxruntime(model, optimised=optimised)(feeds)
    (actual,) = onnxruntime(parts, optimised=optimised)(feeds)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_every_composite_is_tried() -> None:
    tried = {node.partition("(")[0].partition("<")[0] for _, _, node in CASES}
    assert {op_type for _, op_type in COMPOSITES} - ELSEWHERE == tried | {"CumProd"}


@pytest.mark.parametrize(
    ("axis", "attributes"),
    [(1, ""), (-1, "<exclusive = 1>"), (2, "<reverse = 1>"), (0, "<exclusive = 1, reverse = 1>")],
)
def test_running_products(axis: int, attributes: str) -> None:
    text = (
        f"g (float[N, 6, H, W] x) => (float[N, 6, H, W] y) {{ y = CumProd{attributes}(x, axis) }}"
    )
    model = graph_of(text, 26, axis=np.array(axis))
    parts = taken_apart(model)
    assert not {("", n.op_type) for n in parts.graph.node} & set(COMPOSITES)
    images = IMAGES.copy()
    images[:, 2, 1] = 0.0
    (expected,), (actual,) = (onnxruntime(m)({"x": images}) for m in (model, parts))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_running_product_along_a_computed_axis_is_refused() -> None:
    model = graph_of("g (float[2, 3] x, int64 a) => (float[2, 3] y) { y = CumProd(x, a) }", 26)
    with pytest.raises(UnsupportedOperatorError, match=r"computes the axis .*; export the model"):
        taken_apart(model)


@pytest.mark.parametrize(("opset", "given", "node"), [case for case in CASES if case[0] >= 21])
def test_half_precision_stays(opset: int, given: str, node: str) -> None:
    text = onnx.printer.to_text(parse(opset, given, node)).replace("float[", "float16[")
    parts = taken_apart(onnx.parser.parse_model(text))
    inferred = onnx.shape_inference.infer_shapes(parts, strict_mode=True).graph
    types = {value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    assert onnx.TensorProto.FLOAT16 in types
    assert onnx.TensorProto.FLOAT not in types
