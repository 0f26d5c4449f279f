"""Quantised values under all their names, and of all types that ONNX knows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import graph_rewrites as gr

from .runtime import run
from .samples import graph_of


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("elem_type", "folded"),
    [
        (TensorProto.UINT4, True),
        (TensorProto.INT4, False),
        (TensorProto.UINT8, True),
        (TensorProto.INT8, False),
        (TensorProto.UINT16, True),
        (TensorProto.FLOAT8E4M3FN, False),
    ],
)
@pytest.mark.parametrize("explicit", [True, False])
def test_every_quantised_type_is_differentiated(
    elem_type: int, folded: bool, explicit: bool
) -> None:
    """With its zero point spelled out, and with the type as an attribute alone (opset 21)."""
    rng = np.random.default_rng(1)
    quantize = ["c", "step"] + ["zero"] * explicit
    attributes = {} if explicit else {"output_dtype": elem_type}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("QuantizeLinear", quantize, ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", *quantize[1:]], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    constants = {
        "w": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(0, 1, (4, 5)).astype(np.float32),
        "step": np.float32(0.1),
    }
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    if explicit:
        initializers.append(helper.make_tensor("zero", elem_type, [], [0]))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    feeds = {"x": numbers(2, 3, 8, 8), "cotangent": np.ones((2, 5), np.float32)}
    guided = gr.differentiate(model, wrt=["x"], relu="guided")
    assert [a.kind for a in gr.coverage(guided).activations] == ["folded"] * folded
    out = run(guided, feeds)["grad/x"]
    plain = gr.differentiate(model, wrt=["x"])
    assert np.array_equal(out, run(plain, feeds)["grad/x"]) != folded
    assert gr.testing.directional_error(plain, {"x": feeds["x"]}, "x") < 1e-6


@pytest.mark.parametrize("end", ["q3", "d3"])
def test_names_of_one_quantised_value_mean_one_gradient(end: str) -> None:
    """Also where the file ends in integers, and where a pool works on them."""
    elem_type = "uint8" if end == "q3" else "float"
    model = graph_of(
        f"""g (uint8[N, 3, 8, 8] picture) => ({elem_type}[N, 5] {end}) {{
          x = DequantizeLinear(picture, s0, z0)
          c1 = Conv<pads=[1, 1, 1, 1]>(x, w1)  q1 = QuantizeLinear(c1, s1, z1)
          m1 = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(q1)
          d1 = DequantizeLinear(m1, s1, z1)
          c2 = Conv<pads=[1, 1, 1, 1]>(d1, w2)  r2 = Relu(c2)  q2 = QuantizeLinear(r2, s1, z1)
          d2 = DequantizeLinear(q2, s1, z1)
          a = GlobalAveragePool(d2)  f = Flatten(a)  z = MatMul(f, w3)
          q3 = QuantizeLinear(z, s3, z3)
          {"d3 = DequantizeLinear(q3, s3, z3)" * (end == "d3")} }}""",
        w1=numbers(4, 3, 3, 3) / 4,
        w2=numbers(6, 4, 3, 3) / 4,
        w3=numbers(6, 5),
        s0=np.float32(1 / 64),
        z0=np.uint8(128),
        s1=np.float32(0.03),
        z1=np.uint8(0),
        s3=np.float32(0.2),
        z3=np.uint8(120),
    )
    assert gr.scores(model).tensor == end
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    names = ["picture", "c1", "q1", "m1", "d1", "r2", "q2", "d2"]
    grads = gr.differentiate(model, wrt=names)
    assert [o.name for o in grads.graph.output] == [end, *(f"grad/{name}" for name in names)]
    out = run(grads, {"picture": x, "cotangent": np.eye(5, dtype=np.float32)[:2]})
    for same in (("c1", "q1"), ("m1", "d1"), ("r2", "q2", "d2")):
        for name in same:
            assert out[f"grad/{name}"].dtype == np.float32
            np.testing.assert_array_equal(out[f"grad/{name}"], out[f"grad/{same[0]}"])
    for name in names:
        assert gr.testing.directional_error(grads, {"picture": x}, name) < 1e-6


@pytest.mark.parametrize(
    "extreme",
    [
        "m = Max(a, b)",
        "m = Min(a, b)",
        "m = ReduceMax<keepdims=1>(a, axes)",
        "m = ReduceMin<keepdims=1>(a, axes)",
    ],
)
def test_an_extreme_that_is_quantised_at_once_keeps_its_winners(extreme: str) -> None:
    """The rounded result equals none of the inputs: comparing with it would divide by zero."""
    model = graph_of(
        f"""g (float[N, 3, 6, 6] x) => (float[N, 5] y) {{
          a = Conv(x, w)  b = Neg(a)  {extreme}  q = QuantizeLinear(m, s, z)
          d = DequantizeLinear(q, s, z)  g = GlobalAveragePool(d)  f = Flatten(g)
          y = MatMul(f, v) }}""",
        w=numbers(4, 3, 3, 3) / 4,
        v=numbers(4, 5),
        s=np.float32(0.07),
        z=np.uint8(128),
        axes=np.array([2]),
    )
    x = numbers(2, 3, 6, 6)
    grads = gr.differentiate(model, wrt="x")
    out = run(grads, {"x": x, "cotangent": np.ones((2, 5), np.float32)})["grad/x"]
    assert np.isfinite(out).all()
    assert gr.testing.directional_error(grads, {"x": x}, "x") < 1e-6


@pytest.mark.parametrize("block", [None, 4])
def test_weights_with_several_scales_cost_nothing(block: int | None) -> None:
    """Per channel, and in blocks (opset 21): the sweep has no business with them."""
    rng = np.random.default_rng(2)
    attributes = "axis = 1" if block is None else f"axis = 0, block_size = {block}"
    shape = (8,) if block is None else (16 // block, 8)
    model = graph_of(
        f"""g (float[N, 16] x) => (float[N, 5] y) {{
          w = DequantizeLinear <{attributes}> (q, s, z)  h = MatMul(x, w)
          qh = QuantizeLinear(h, sa, za)  dh = DequantizeLinear(qh, sa, za)
          y = MatMul(dh, v) }}""",
        opset=21,
        q=rng.integers(-127, 128, (16, 8)).astype(np.int8),
        s=rng.uniform(0.01, 0.02, shape).astype(np.float32),
        z=np.zeros(shape, np.int8),
        sa=np.float32(0.05),
        za=np.uint8(0),
        v=numbers(8, 5),
    )
    x = numbers(2, 16)
    grads = gr.differentiate(model, wrt="x", relu="gradient")
    assert [a.kind for a in gr.coverage(grads).activations] == ["folded"]
    out = run(grads, {"x": x, "cotangent": np.ones((2, 5), np.float32)})
    assert np.abs(out["grad/x"]).max() > 0
    assert gr.testing.directional_error(grads, {"x": x}, "x") < 1e-6


def test_an_operator_that_only_one_runtime_knows_is_named_with_the_remedy() -> None:
    model = graph_of(
        """g (float[N, 16] x) => (float[N, 5] y) {
          h = com.microsoft.MatMulNBits <K = 16, N = 8, bits = 4, block_size = 16> (x, w, s)
          y = MatMul(h, v) }""",
        w=np.zeros((8, 1, 8), np.uint8),
        s=np.ones(8, np.float32),
        v=numbers(8, 5),
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(gr.errors.ModelError, match=r"com.microsoft.MatMulNBits .*use the model as"):
        gr.differentiate(model, wrt="x")


def test_a_float16_score_is_explained_where_nothing_follows_it() -> None:
    """The score is the output itself, whose type stays; its cotangent is float32."""
    model = graph_of(
        """g (float16[N, 3, 8, 8] x) => (float16[N, 5] y) {
          c = Conv(x, w)  r = Relu(c)  a = GlobalAveragePool(r)  f = Flatten(a)
          y = MatMul(f, v) }""",
        w=numbers(4, 3, 3, 3).astype(np.float16),
        v=numbers(4, 5).astype(np.float16),
    )
    x = numbers(2, 3, 8, 8).astype(np.float16)
    explained = gr.explanation_model(model, ("gradient", "grad_cam"), targets=1)
    out = run(explained, {"x": x, "target": np.array([-1, 2])})
    assert out["y"].dtype == np.float16
    assert out["score/used"].dtype == np.float32
    np.testing.assert_array_equal(out["target/used"], [out["y"][0].argmax(), 2])
    assert np.abs(out["map/gradient"]).max() > 0
