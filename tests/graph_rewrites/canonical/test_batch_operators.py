"""Freeing a batch through merged axes, products, indexed reads and writes, and recurrences.

As in `test_batch`, what counts is that different images together give what each gives apart.
"""

import re

import numpy as np
import onnx
import pytest

from graph_rewrites.canonical import canonical_facts, canonicalize
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(9)
GIVEN = {
    "w6x3": RNG.standard_normal((6, 3)).astype(np.float32),
    "bias": RNG.standard_normal((1, 2, 2)).astype(np.float32),
    "mask": RNG.standard_normal((1, 4, 1, 1)).astype(np.float32),
    "lw": RNG.standard_normal((1, 12, 12)).astype(np.float32),
    "lr": RNG.standard_normal((1, 12, 3)).astype(np.float32),
    "zero_state": np.zeros((1, 1, 3), np.float32),
    "state": np.ones((1, 1, 3), np.float32),
    "w432": RNG.standard_normal((4, 3, 2)).astype(np.float32),
    "corner": np.array([[0, 1], [1, 3]]),
    "kernel": RNG.standard_normal((4, 4, 1, 1)).astype(np.float32),
}


def _model(body: str, batch: int) -> onnx.ModelProto:
    """A model of (batch, 4, 2, 6) images; `c[N,-1]` in the text is a constant, N the batch."""
    lists = re.findall(r"c\[([^]]*)\]", body)
    for at in range(len(lists)):
        body = re.sub(r"c\[[^]]*\]", f"c{at}", body, count=1)
    known = [re.sub(r"\b(\d*)N\b", lambda m: str(batch * int(m[1] or 1)), text) for text in lists]
    constants = [f"c{at} = Constant<value_ints = [{text}]>() " for at, text in enumerate(known)]
    given = {name: value for name, value in GIVEN.items() if re.search(rf"\b{name}\b", body)}
    text = f"agraph (float[{batch},4,2,6] x) => (float[1] y) {{ {''.join(constants)} {body} }}"
    model = graph_of(text, **given)
    model.graph.output[0].ClearField("type")
    model.graph.output[0].CopyFrom(
        onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
    )
    return model


WINDOWS = (  # 2 × 3 windows of 1 × 2 places, four channels, attention among the places of one
    "a = Transpose<perm=[0,2,3,1]>(x)  b = Reshape(a, c[N,2,1,3,2,4])"
    "  d = Transpose<perm=[0,1,3,2,4,5]>(b)  e = Reshape(d, c[6N,2,4])"
    "  t = Transpose<perm=[0,2,1]>(e)  f = MatMul(e, t)  g = Add(f, bias)  h = Softmax(g)"
    "  i = MatMul(h, e)  j = Reshape(i, c[N,2,3,1,2,4])  k = Transpose<perm=[0,1,3,2,4,5]>(j)"
    "  l = Reshape(k, c[N,2,6,4])  y = Transpose<perm=[0,3,1,2]>(l)"
)
FREED = {
    "attention in windows": WINDOWS,
    "windows without a size": WINDOWS.replace("c[6N,2,4]", "c[-1,2,4]"),
    "channels as rows of a product": (
        "a = Reshape(x, c[8N,6])  b = MatMul(a, w6x3)  y = Reshape(b, c[N,24])"
    ),
    "channels as images": (
        "a = Reshape(x, c[4N,1,2,6])  b = InstanceNormalization(a, one, one)"
        "  y = Reshape(b, c[N,4,12])"
    ),
    "flattened into rows": "a = Flatten<axis=3>(x)  b = MatMul(a, w6x3)  y = Reshape(b, c[N,-1])",
    "the windows' own mask": (
        "a = Reshape(x, c[4N,2,6])  b = Tanh(a)  d = Reshape(b, c[N,4,2,6])  e = Add(d, mask)"
        "  y = Reshape(e, c[N,48])"
    ),
    "heads in front": (
        "a = Reshape(x, c[N,4,12])  b = Transpose<perm=[1,0,2]>(a)  d = Reshape(b, c[4,N,2,6])"
        "  y = Transpose<perm=[1,0,2,3]>(d)"
    ),
    "Einsum of two": 'y = Einsum<equation="nchw,ncvw->nchv">(x, x)',
    "Einsum with a weight": 'y = Einsum<equation="nchw, cdh -> ndw">(x, w432)',
    "GridSample": (
        "a = Reshape(x, c[N,8,3,2])  b = Tanh(a)  y = GridSample(x, b)"
    ),
    "LSTM over rows": (
        "a = Reshape(x, c[N,4,12])  b = Transpose<perm=[1,0,2]>(a)"
        "  d, s, t = LSTM<hidden_size=3>(b, lw, lr)  e = Transpose<perm=[2,0,1,3]>(d)"
        "  y = Reshape(e, c[N,12])"
    ),
    "LSTM, its last state": (
        "a = Reshape(x, c[N,4,12])  b = Transpose<perm=[1,0,2]>(a)"
        "  d, s, t = LSTM<hidden_size=3>(b, lw, lr)  y = Squeeze(s, c[0])"
    ),
    "ScatterND behind the batch": (
        "a = Transpose<perm=[2,1,0,3]>(x)  u = Neg(a)  v = GatherND(u, corner)"
        "  b = ScatterND(a, corner, v)  y = Transpose<perm=[2,1,0,3]>(b)"
    ),
    "GatherElements": (
        "i = ArgMax<axis=1>(x)  y = GatherElements<axis=1>(x, i)"
    ),
    "ScatterElements": (
        "i = ArgMax<axis=1>(x)  m = ReduceMax(x, c[1])  n = Neg(m)"
        "  y = ScatterElements<axis=1>(x, i, n)"
    ),
    "CumSum": "y = CumSum(x, c[1])",
    "Trilu": "y = Trilu(x)",
    "Col2Im": "a = Reshape(x, c[N,8,6])  y = Col2Im(a, c[3,4], c[2,2])",
}  # fmt: skip
GIVEN["one"] = np.ones(1, np.float32)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", FREED)
def test_images_stay_apart(case: str, batch: int):
    model = _model(FREED[case], batch)
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    images = RNG.standard_normal((3 * batch, 4, 2, 6)).astype(np.float32)
    original = session(model)
    expected = [original.run(None, {"x": part})[0] for part in np.split(images, 3)]
    together = run(canonical, {"x": images})["y"]
    np.testing.assert_allclose(together, np.concatenate(expected), rtol=1e-6, atol=1e-6)
    alone = run(canonical, {"x": images[:1]})["y"]
    np.testing.assert_allclose(alone, expected[0][:1], rtol=1e-6, atol=1e-6)


def test_initial_states_of_zeros_are_left_out_and_others_keep_the_batch():
    text = (
        "a = Reshape(x, c[1,4,12])  b = Transpose<perm=[1,0,2]>(a)"
        "  d, s, t = LSTM<hidden_size=3>(b, lw, lr, , , zero_state, zero_state)"
        "  y = Squeeze(s, c[0])"
    )
    model = _model(text, 1)
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    images = RNG.standard_normal((2, 4, 2, 6)).astype(np.float32)
    apart = [session(model).run(None, {"x": images[i : i + 1]})[0] for i in (0, 1)]
    np.testing.assert_allclose(
        run(canonical, {"x": images})["y"], np.concatenate(apart), rtol=1e-6, atol=1e-6
    )
    kept = canonicalize(_model(text.replace("zero_state", "state"), 1))
    assert "has a batch of its own" in canonical_facts(kept)["batch"]


def test_squeeze_without_axes_names_them_where_the_batch_is_several():
    text = "m = ReduceMax(x, c[1,2,3])  a = Squeeze(m)  y = Unsqueeze(a, c[1])"
    canonical = canonicalize(_model(text, 2))
    assert canonical_facts(canonical)["batch"] == "free"
    images = RNG.standard_normal((1, 4, 2, 6)).astype(np.float32)
    assert run(canonical, {"x": images})["y"] == images.max()
    assert "acts along the batch" in canonical_facts(canonicalize(_model(text, 1)))["batch"]


MIXED = {
    "windows of several images normalised together": (
        "a = Reshape(x, c[4N,12])  b = Softmax<axis=0>(a)  y = Reshape(b, c[N,48])"
    ),
    "windows with a part of a constant each": (
        "a = Reshape(x, c[4N,12])  b = Reshape(mask, c[4,1])  d = Add(a, b)"
        "  y = Reshape(d, c[N,48])"
    ),
    "an image combined with its windows": (
        "a = Reshape(x, c[4N,2,6])  m = ReduceMax<keepdims=0>(x, c[1])  d = Add(a, m)"
        "  y = Reshape(d, c[N,48])"
    ),
    "windows left as images": "y = Reshape(x, c[4N,12])",
    "Einsum over the batch": 'a = Einsum<equation="nchw,mchw->nm">(x, x)  y = Identity(a)',
    "a cumulative sum over images": "y = CumSum(x, c[0])",
    "indices along the batch": "i = ArgMax<axis=0>(x)  y = GatherElements<axis=0>(x, i)",
}


@pytest.mark.parametrize("case", MIXED)
def test_images_that_are_mixed_are_not_freed(case: str):
    assert canonical_facts(canonicalize(_model(MIXED[case], 1)))["batch"] != "free"
