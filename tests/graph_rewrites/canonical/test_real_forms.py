"""Files as they come: open sizes, several inputs, bytes in NHWC, training mode, 16 bits."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graph_rewrites import differentiate, explanation_model
from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.errors import ModelError
from graph_rewrites.sharp import directional_error
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(8)


def _floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


OPEN = graph_of(
    """agraph (float[N,3,H,W] x) => (float[N,5] y) {
      h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)  r = Relu(h)
      p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(r)
      q = Conv(p, v)  all = Shape(r)  size = Slice(all, two, four)  some = Shape(q)
      front = Slice(some, zero, two)  sizes = Concat<axis=0>(front, size)
      u = Resize<mode="linear">(q, , , sizes)  g = GlobalAveragePool(u)  f = Flatten(g)
      y = Gemm(f, k) }""",
    17,
    w=_floats(8, 3, 3, 3),
    v=_floats(6, 8, 1, 1),
    k=_floats(6, 5),
    zero=np.array([0]),
    two=np.array([2]),
    four=np.array([4]),
)


def test_one_explanation_model_serves_every_size():
    explained = explanation_model(OPEN, method=("grad_cam", "saliency"))
    grads = differentiate(OPEN, "x")
    for height, width in ((16, 16), (23, 30)):
        x = _floats(2, 3, height, width)
        found = run(explained, {"x": x, "target": np.array([-1, 2])})
        assert found["map/grad_cam"].shape == found["map/saliency"].shape == (2, height, width)
        assert np.isfinite(found["map/grad_cam"]).all()
        assert directional_error(grads, {"x": x}, "x", directions=2) <= 1e-6


@pytest.mark.parametrize("batch", ["N", 1])
def test_two_pictures_and_a_number(batch: str | int):
    model = graph_of(
        f"""agraph (float[{batch},3,8,8] a, float[{batch},3,8,8] b, float[{batch},1] z, float t)
        => (float[{batch},5] y) {{ h = Conv(a, w)  k = Conv(b, w)  s = Add(h, k)  r = Relu(s)
        g = GlobalAveragePool(r)  f = Flatten(g)  n = Mul(f, z)  m = Mul(n, t)
        y = Gemm(m, v) }}""",
        17,
        w=_floats(6, 3, 3, 3),
        v=_floats(6, 5),
    )
    scale = np.array(0.7, np.float32)
    feeds = {"a": _floats(2, 3, 8, 8), "b": _floats(2, 3, 8, 8), "z": _floats(2, 1), "t": scale}
    assert canonical_facts(canonicalize(model))["batch"] == "free"
    grads = differentiate(model, ["a", "b", "z"])
    assert max(directional_error(grads, feeds, name, directions=2) for name in "abz") <= 1e-6
    explained = explanation_model(model, method="saliency")
    assert run(explained, {**feeds, "target": np.array([0, 1])})["map/saliency"].shape == (2, 8, 8)


def test_bytes_in_nhwc_with_odd_same_padding():
    model = graph_of(
        """agraph (uint8[1,9,10,3] x) => (float[1,5] y) { f = Cast<to=1>(x)  d = Div(f, full)
        t = Transpose<perm=[0,3,1,2]>(d)  h = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(t, w)
        r = Relu(h)  g = GlobalAveragePool(r)  q = Flatten(g)  z = Gemm(q, v)  y = Softmax(z) }""",
        13,
        w=_floats(6, 3, 3, 3),
        v=_floats(6, 5),
        full=np.float32(255).reshape(()),
    )
    x = RNG.integers(0, 256, (2, 9, 10, 3), np.uint8)
    apart = [session(model).run(None, {"x": x[i : i + 1]})[0] for i in (0, 1)]
    together = run(canonicalize(model), {"x": x})["y"]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-6)
    assert directional_error(differentiate(model, "x"), {"x": x}, "x") <= 1e-6
    maps = run(
        explanation_model(model, method=("gradient", "grad_cam")),
        {"x": x, "target": np.array([0, 1])},
    )
    assert maps["map/gradient"].shape == (2, 9, 10, 3)
    assert maps["map/grad_cam/raw"].shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("body", "opset", "reason"),
    [
        ("h = BatchNormalization<training_mode=1>(x, p, q, q, p)", 15, "training_mode=1"),
        ("h, m, v = BatchNormalization<training_mode=1>(x, p, q, q, p)", 15, "training_mode=1"),
        ("h, m, v, a, b = BatchNormalization(x, p, q, q, p)", 9, "statistics of the images"),
        ("h = Dropout(x, half, yes)", 13, "training mode of Dropout .* is on"),
    ],
)
def test_training_mode_is_refused_with_a_remedy(body: str, opset: int, reason: str):
    model = graph_of(
        f"agraph (float[N,3,8,8] x) => (float[N,3] y) {{ {body}  g = GlobalAveragePool(h)"
        "  y = Flatten(g) }",
        opset,
        p=np.ones(3, np.float32),
        q=np.zeros(3, np.float32),
        half=np.float32(0.5).reshape(()),
        yes=np.array(True),
    )
    model.graph.node[0].name = "layer 1"
    with pytest.raises(ModelError, match=f"'layer 1'.*opset.*{reason}|{reason}.*") as caught:
        canonicalize(model)
    assert "export the model in inference mode" in str(caught.value)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("version", [13, 18, 21])
def test_16_bits_with_islands_of_32(kind: str, version: int):
    code = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[kind]
    axes = "<axes=[2,3], keepdims=0>(f)" if version < 18 else "<keepdims=0>(f, axes)"
    model = graph_of(
        f"""agraph (float[1,3,8,8] x) => (float[1,5] y) {{ a = Cast<to={code}>(x)  h = Conv(a, w)
        r = Relu(h)  f = Cast<to=1>(r)  m = ReduceMean{axes}  i = Cast<to={code}>(m)
        z = MatMul(i, v)  y = Cast<to=1>(z) }}""",
        version,
        **({} if version < 18 else {"axes": np.array([2, 3])}),
    )
    for name, shape in (("w", (6, 3, 3, 3)), ("v", (6, 5))):
        values = _floats(*shape).reshape(-1).tolist()
        model.graph.initializer.append(helper.make_tensor(name, code, shape, values))
    x = _floats(2, 3, 8, 8)
    canonical = canonicalize(model)
    facts = canonical_facts(canonical)
    assert (facts["batch"], facts["widened"]) == ("free", [kind])
    stored = {tensor.data_type for tensor in canonical.graph.initializer if tensor.name in "wv"}
    assert stored == {code}  # the file stays small
    if kind == "float16":  # bfloat16 convolutions have no kernel on the CPU
        apart = [session(model).run(None, {"x": x[i : i + 1]})[0] for i in (0, 1)]
        np.testing.assert_allclose(
            run(canonical, {"x": x})["y"], np.concatenate(apart), rtol=2e-3, atol=2e-3
        )
    assert directional_error(differentiate(canonical, "x"), {"x": x}, "x") <= 1e-6


def test_sandwiches_of_transposes_as_tensorflow_leaves_them():
    model = graph_of(
        """agraph (float[N,9,10,3] x) => (float[N,5] y) {
        a = Transpose<perm=[0,3,1,2]>(x)  b = Pad(a, uneven)  c = Conv<strides=[2,2]>(b, w)
        d = Transpose<perm=[0,2,3,1]>(c)  e = Add(d, bias)  f = Clip(e, zero, six)
        g = Transpose<perm=[0,3,1,2]>(f)
        h = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(g)
        i = Transpose<perm=[0,2,3,1]>(h)  j = ReduceMean<axes=[1,2], keepdims=0>(i)
        k = MatMul(j, v)  y = Softmax(k) }""",
        13,
        uneven=np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        w=_floats(6, 3, 3, 3),
        bias=_floats(6),
        v=_floats(6, 5),
        zero=np.float32(0).reshape(()),
        six=np.float32(6).reshape(()),
    )
    x = _floats(2, 9, 10, 3)
    expected = session(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(run(canonicalize(model), {"x": x})["y"], expected, rtol=1e-5)
    assert directional_error(differentiate(model, ["x"]), {"x": x}, "x") <= 1e-6
    maps = run(explanation_model(model, method="grad_cam"), {"x": x, "target": np.array([0, -1])})
    assert maps["map/grad_cam"].shape == (2, 9, 10)
    onnx.checker.check_model(model)
