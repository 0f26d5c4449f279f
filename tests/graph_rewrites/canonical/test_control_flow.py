"""Control flow beside the path: detectors' heads, undecided branches, loops and what they hold."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import helper

from graph_rewrites import differentiate, feature_maps
from graph_rewrites.canonical import canonicalize
from graph_rewrites.errors import UnsupportedControlFlowError
from graph_rewrites.sharp import directional_error
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(4)
HALF = np.float32(0.5).reshape(())


def _floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def _detector(opset: int, batch: int) -> onnx.ModelProto:
    """Scores `b` (batch, 64, 5), then non-maximum suppression, a Loop and a Scan over the boxes."""
    text = f"""agraph (float[{batch},3,16,16] x)
        => (float[?,3] picked, int64[1] doubled, float[?,3] turned) {{
      h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)  r = Relu(h)  s = Conv(r, v)
      a = Reshape(s, to_scores)  b = Transpose<perm=[0,2,1]>(a)
      p = Sigmoid(b)  sc = Transpose<perm=[0,2,1]>(p)
      bx = Conv(r, u)  by = Reshape(bx, to_boxes)  boxes = Transpose<perm=[0,2,1]>(by)
      at = NonMaxSuppression(boxes, sc, most, overlap, least)  picked = Cast<to=1>(at)
      shape = Shape(at)  count = Gather(shape, first)
      go = Constant<value = bool {{1}}>()  one = Constant<value = int64[1] {{1}}>()
      doubled = Loop(count, go, one) <body = l (int64 i, bool c, int64[1] k)
        => (bool d, int64[1] e) {{ d = Identity(c)  e = Add(k, k) }}>
      turned = Scan<num_scan_inputs=1, body = m (float[3] row) => (float[3] out)
        {{ out = Neg(row) }}>(picked) }}"""
    return graph_of(
        text,
        opset,
        w=_floats(8, 3, 3, 3),
        v=_floats(5, 8, 1, 1),
        u=_floats(4, 8, 1, 1),
        to_scores=np.array([batch, 5, 64]),
        to_boxes=np.array([batch, 4, 64]),
        most=np.array([3]),
        overlap=np.array([0.5], np.float32),
        least=np.array([0.1], np.float32),
        first=np.array(0),
    )


@pytest.mark.parametrize(("opset", "batch"), [(11, 1), (13, 2), (18, 1), (21, 2)])
def test_a_detector_s_head_behind_the_explained_tensor(opset: int, batch: int):
    model = _detector(opset, batch)
    feeds = {"x": _floats(batch, 3, 16, 16)}
    canonical = canonicalize(model)
    found = run(canonical, feeds)
    for value, output in zip(session(model).run(None, feeds), model.graph.output, strict=True):
        np.testing.assert_array_equal(found[output.name], value)
    grads = differentiate(canonical, ["x", "r"], of="b")
    assert directional_error(grads, feeds, "x", of="b", directions=2) <= 1e-6
    run(grads, {**feeds, "cotangent": np.ones((batch, 64, 5), np.float32)})


BRANCH = """agraph (float[2,4] x) => (float[2,4] y) { h = Tanh(x)  s = ReduceMax<keepdims=0>(h)
  c = Greater(s, half)  y = If(c) <then_branch = t () => (float[2,4] p) { %s },
  else_branch = e () => (float[2,4] q) { q = Neg(h) }> }"""
INSIDE = {
    "Swish": ("p = Swish(h)", 24),
    "RMSNormalization": ("p = RMSNormalization(h, scale)", 23),
    "Gelu": ("p = Gelu(h)", 20),
    "fused Gelu": ("p = com.microsoft.Gelu(h)", 17),
    "Upsample": (
        'u = Upsample<mode="nearest", scales=[1.0,2.0]>(h)  p = Slice<ends=[4], starts=[0],'
        " axes=[1]>(u)",
        8,
    ),
    "a decided If": (
        "k = Constant<value = bool {1}>()  p = If(k) <then_branch = tt () => (float[2,4] pp)"
        " { pp = Exp(h) }, else_branch = ee () => (float[2,4] qq) { qq = Neg(h) }>",
        16,
    ),
}


@pytest.mark.parametrize("case", INSIDE)
def test_what_an_undecided_branch_holds_keeps_its_numbers(case: str):
    body, opset = INSIDE[case]
    scale = {"scale": np.ones(4, np.float32)} if "scale" in body else {}
    model = graph_of(BRANCH % body, opset, half=HALF, **scale)
    if "microsoft" in body:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    canonical = canonicalize(model)
    high, low = np.full((2, 4), 2, np.float32), np.full((2, 4), -2, np.float32)
    for x in (high, low):  # either branch
        expected = session(model).run(None, {"x": x})[0]
        np.testing.assert_allclose(run(canonical, {"x": x})["y"], expected, rtol=1e-6)
    differentiate(canonical, ["x"], of="h")  # before the branch


def test_branches_within_branches_are_decided():
    model = graph_of(
        """agraph (float[2,4] x) => (float[2,4] y) { h = Tanh(x)  s = Shape(h)  n = Gather(s, one)
        c = Equal(n, four)  y = If(c) <then_branch = t () => (float[2,4] p) { d = Not(c)
          p = If(d) <then_branch = tt () => (float[2,4] pp) { pp = Exp(h) },
                     else_branch = ee () => (float[2,4] qq) { z = Neg(h)  qq = Relu(z) }> },
        else_branch = e () => (float[2,4] q) { q = Neg(h) }> }""",
        17,
        one=np.array(1),
        four=np.array(4),
    )
    canonical = canonicalize(model)
    assert [node.op_type for node in canonical.graph.node] == ["Tanh", "Neg", "Relu"]


LOOP = """agraph (float[2,4] x) => (float[2,4] y) { h = Tanh(x)  t = Constant<value=int64 {3}>()
  c = Constant<value = bool {1}>()  y = Loop(t, c, h) <body = b (int64 i, bool ci, float[2,4] a)
  => (bool co, float[2,4] o) { co = Identity(ci)  o = %s }> }"""


@pytest.mark.parametrize(("operator", "opset"), [("Sigmoid(a)", 13), ("Swish(a)", 24)])
def test_a_loop_keeps_its_numbers_and_is_refused_on_the_path(operator: str, opset: int):
    model = graph_of(LOOP % operator, opset)
    x = _floats(2, 4)
    unrolled = graph_of(
        "agraph (float[2,4] x) => (float[2,4] y) { a = Tanh(x) "
        + "".join(f" {new} = {operator.replace('(a)', f'({old})')}" for old, new in ("ab", "bc"))
        + f" y = {operator.replace('(a)', '(c)')} }}",
        opset,
    )
    canonical = canonicalize(model)
    expected = run(canonicalize(unrolled), {"x": x})["y"]
    np.testing.assert_allclose(run(canonical, {"x": x})["y"], expected, rtol=1e-6)
    differentiate(canonical, ["x"], of="h")
    with pytest.raises(
        UnsupportedControlFlowError, match=r"Loop \(output 'y', opset \d+\).*export"
    ):
        differentiate(canonical, ["x"], of="y")


def test_layers_before_a_detector_s_head_are_listed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # chosen boxes are no other scores
        tensors = {layer.tensor for layer in feature_maps(_scored_detector())}
    assert {"h", "r"} <= tensors


def _scored_detector() -> onnx.ModelProto:
    """The detector with class scores of the whole image as its first output."""
    model = _detector(18, 1)
    graph = model.graph
    graph.node.insert(2, helper.make_node("GlobalAveragePool", ["r"], ["pooled"]))
    graph.node.insert(3, helper.make_node("Flatten", ["pooled"], ["logits"]))
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 8])
    outputs = [logits, *graph.output]
    del graph.output[:]
    graph.output.extend(outputs)
    return model
