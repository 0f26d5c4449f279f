"""16-bit files: float32 arithmetic, 16-bit weights, inputs and outputs as they were."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.errors import UnsupportedControlFlowError
from graph_rewrites.graph import Graph
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

WEIGHT = np.random.default_rng(8).standard_normal((6, 6)).astype(np.float16)


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((count, 6)).astype(np.float16)


def _half(body: str, outputs: str = "float16[1,6] y", **extra: np.ndarray) -> onnx.ModelProto:
    weights = {"w": WEIGHT} if "w)" in body or "w," in body else {}
    return graph_of(f"agraph (float16[1,6] x) => ({outputs}) {{ {body} }}", **weights, **extra)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = Graph(model)
    return {name: graph.type(name).elem_type for node in graph.nodes for name in node.outputs}


def test_arithmetic_is_float32_and_the_borders_are_not():
    model = _half("a = MatMul(x, w)  b = Relu(a)  y = Softmax(b)")
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["widened"] == ["float16"]
    assert [(v.name, v.type.tensor_type.elem_type) for v in canonical.graph.input] == [
        ("x", TensorProto.FLOAT16)
    ]
    types = _types(canonical)
    assert {types[name] for name in ("a", "b")} == {TensorProto.FLOAT}
    assert [name for name, kind in types.items() if kind == TensorProto.FLOAT16] == ["y"]
    (weight,) = canonical.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), WEIGHT)
    x = _images(3)
    result = run(canonical, {"x": x})["y"]
    assert result.dtype == np.float16
    expected = np.concatenate([session(model).run(None, {"x": row[None]})[0] for row in x])
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_a_weight_that_several_operators_read_is_cast_once():
    canonical = canonicalize(_half("a = MatMul(x, w)  b = MatMul(a, w)  y = Add(a, b)"))
    casts = [node.input[0] for node in canonical.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == ["w", "x", "y/float32"]


def test_small_constants_become_float32_themselves():
    model = _half("y = Clip(x, lo, hi)", lo=np.float16(0), hi=np.float16(6))
    graph = Graph(canonicalize(model))
    (clip,) = [node for node in graph.nodes if node.op_type == "Clip"]
    bounds = [graph.constant(clip.input(i)) for i in (1, 2)]
    assert [(bound.dtype, float(bound)) for bound in bounds if bound is not None] == [
        (np.float32, 0.0),
        (np.float32, 6.0),
    ]


def test_an_output_that_others_read_is_read_in_float32():
    model = _half("y = MatMul(x, w)  z = Relu(y)", "float16[1,6] y, float16[1,6] z")
    canonical = canonicalize(model)
    (relu,) = [node for node in canonical.graph.node if node.op_type == "Relu"]
    assert relu.input == ["y/float32"]
    x = _images(1)
    result = run(canonical, {"x": x})
    expected = dict(zip("yz", session(model).run(None, {"x": x}), strict=True))
    for name in "yz":
        np.testing.assert_allclose(result[name], expected[name], rtol=2e-3, atol=2e-3)


def test_casts_between_16_and_32_bits_vanish():
    body = (
        "a = Cast<to=1>(x)  b = Relu(a)  c = Cast<to=10>(b)  d = Neg(c)  e = Cast<to=1>(d)"
        " y = Abs(e)"
    )
    canonical = canonicalize(_half(body, "float[1,6] y"))
    assert [node.op_type for node in canonical.graph.node] == ["Cast", "Relu", "Neg", "Abs"]
    assert run(canonical, {"x": np.full((2, 6), 3, np.float16)})["y"].tolist() == [[3.0] * 6] * 2


def test_types_named_in_attributes_follow():
    model = _half("s = Shape(x)  a = ConstantOfShape(s)  y = Add(x, a)")
    half = numpy_helper.from_array(np.array([0.5], np.float16))
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("value", half))
    canonical = canonicalize(model)
    assert run(canonical, {"x": np.ones((2, 6), np.float16)})["y"].tolist() == [[1.5] * 6] * 2


def test_integers_stay_integers():
    body = "a = MatMul(x, w)  i = ArgMax<axis=1>(a)  j = Cast<to=10>(i)  y = Mul(x, j)"
    model = _half(body)
    x = _images(1)
    expected = session(model).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(canonicalize(model), {"x": x})["y"], expected)


def test_sixteen_bit_weights_alone_are_no_sixteen_bit_model():
    model = graph_of(
        "agraph (float[1,6] x) => (float[1,6] y) { v = Cast<to=1>(w)  y = MatMul(x, v) }", w=WEIGHT
    )
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["widened"] == []
    assert canonical.graph.node == model.graph.node


def test_bfloat16_is_widened_too():
    weight = WEIGHT.astype(ml_dtypes.bfloat16)
    model = graph_of(
        "agraph (bfloat16[1,6] x) => (bfloat16[1,6] y) { a = MatMul(x, w)  y = Relu(a) }", w=weight
    )
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["widened"] == ["bfloat16"]
    onnx.checker.check_model(canonical, full_check=True)
    x = _images(2).astype(ml_dtypes.bfloat16)
    (result,) = onnx.reference.ReferenceEvaluator(canonical).run(None, {"x": x})
    wanted = np.maximum(x.astype(np.float32) @ weight.astype(np.float32), 0)
    np.testing.assert_allclose(result.astype(np.float32), wanted, rtol=1e-2, atol=1e-2)


def test_a_custom_operator_goes_on_in_16_bits():
    model = graph_of(
        "agraph (float16[1,6] x) => (float16[1,6] y) <float16[1,6] b>"
        " { a = Relu(x)  b = my.Foreign(a, w)  y = Neg(b) }",
        w=WEIGHT,
    )
    canonical = canonicalize(model)
    by_output = {node.output[0]: node for node in canonical.graph.node}
    (foreign,) = [node for node in canonical.graph.node if node.domain == "my"]
    assert foreign.input == ["a/float16", "w"]
    assert by_output["a/float16"].op_type == "Cast"
    assert by_output["b"].op_type == "Cast"
    assert by_output["b"].input == foreign.output
    types = _types(canonical)
    assert (types["a"], types["b"]) == (TensorProto.FLOAT, TensorProto.FLOAT)


def test_a_subgraph_in_16_bits_is_refused():
    model = graph_of(
        "agraph (float16[1,6] x, bool c) => (float16[1,6] y) { a = Relu(x)  y = If (c) <"
        "then_branch = p () => (float16[1,6] u) { u = Neg(a) },"
        "else_branch = q () => (float16[1,6] v) { v = Abs(a) }> }"
    )
    with pytest.raises(UnsupportedControlFlowError, match=r"If \(output 'y'.*16 bits"):
        canonicalize(model)


def test_declared_types_of_inner_tensors_follow():
    model = _half("a = MatMul(x, w)  y = Relu(a)")
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("a", TensorProto.FLOAT16, [1, 6])
    )
    (value,) = canonicalize(model).graph.value_info
    assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert value.type.tensor_type.shape.dim[0].dim_param == "N"
