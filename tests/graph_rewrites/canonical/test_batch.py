"""Freeing a fixed batch: never silently wrong, and done wherever it is right.

"Right" is measured: three different images together must give what the original gives for each of
them apart. Identical images would hide every case.
"""

import logging
import re

import numpy as np
import onnx
import pytest

from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.errors import ModelError
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(5)
WEIGHTS = {
    "w12x2": RNG.standard_normal((12, 2)).astype(np.float32),
    "per_channel": RNG.standard_normal((1, 4, 1, 1)).astype(np.float32),
    "ones4": np.ones(4, np.float32),
    "zeros4": np.zeros(4, np.float32),
    "row4": RNG.standard_normal((1, 4)).astype(np.float32),
    "table": RNG.standard_normal((7, 3)).astype(np.float32),
    "token": RNG.standard_normal((1, 1, 6)).astype(np.float32),
    "plane": RNG.standard_normal((1, 1, 2, 6)).astype(np.float32),
    "kernel": RNG.standard_normal((4, 4, 1, 1)).astype(np.float32),
    "strip": RNG.standard_normal((1, 4, 1, 6)).astype(np.float32),
    "ramp": np.arange(48, dtype=np.float32),
    "shape": np.array([1, 48], np.int64),
    "mid": np.array([1], np.int64),
    "half": np.array(0.5, np.float32),
}


def _model(body: str, inputs: str = "float[1,4,2,6] x") -> onnx.ModelProto:
    """A model of (1, 4, 2, 6) images; `c[1,-1]` in the text is a constant shape of that value."""
    shapes = re.findall(r"c\[([^]]*)\]", body)
    constants = [f"c{at} = Constant<value_ints = [{shape}]>() " for at, shape in enumerate(shapes)]
    for at in range(len(shapes)):
        body = re.sub(r"c\[[^]]*\]", f"c{at}", body, count=1)
    read = {name: value for name, value in WEIGHTS.items() if re.search(rf"\b{name}\b", body)}
    model = graph_of(f"agraph ({inputs}) => (float[1] y) {{ {''.join(constants)} {body} }}", **read)
    model.graph.output[0].ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
    if not inferred.type.tensor_type.HasField("shape"):  # a custom operator's
        inferred.type.CopyFrom(model.graph.input[0].type)
    model.graph.output[0].CopyFrom(inferred)
    return model


def _images(model: onnx.ModelProto, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    images = {}
    for value in model.graph.input:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            images[value.name] = rng.integers(0, 6, (count, *dims))
        else:
            images[value.name] = rng.standard_normal((count, *dims)).astype(np.float32)
    return images


def _batch_of(value: onnx.ValueInfoProto) -> int | str:
    dim = value.type.tensor_type.shape.dim[0]
    return dim.dim_param or dim.dim_value


KEPT_APART = {
    "joined with a constant": "y = Concat<axis=2>(x, strip)",
    "joined with fixed zeros": (
        "s = Constant<value_ints=[1,4,2,6]>()  z = ConstantOfShape(s)  y = Concat<axis=1>(x, z)"
    ),
    "leading 1": "y = Reshape(x, c[1,-1])",
    "leading 1 and a free axis": "y = Reshape(x, c[1,4,-1])",
    "a channel shuffle": (
        "a = Reshape(x, c[1,2,2,-1,6])  b = Transpose<perm=[0,2,1,3,4]>(a)"
        "  y = Reshape(b, c[1,4,2,6])"
    ),
    "normalisation over groups": (
        "a = Reshape(x, c[1,4,-1])  b = InstanceNormalization(a, ones4, zeros4)"
        "  y = Reshape(b, c[1,4,2,6])"
    ),
    "leading 0": "y = Reshape(x, c[0,-1])",
    "leading -1": "y = Reshape(x, c[-1,48])",
    "a 1 that follows the batch": "y = Reshape(x, c[1,1,48])",
    "flatten": "y = Flatten<axis=1>(x)",
    "the picture's own axes": "y = ReduceMean<keepdims=0>(x, c[2,3])",
    "negative axes": "y = ReduceL2<keepdims=0>(x, c[-1,-2])",
    "softmax over channels": "y = Softmax<axis=1>(x)",
    "sizes of a nearest Resize": 'y = Resize<mode="nearest">(x, , , c[1,4,4,12])',
    "sizes of a linear Resize": 'y = Resize<mode="linear">(x, , , c[1,4,3,9])',
    "scales of a Resize": (
        's = Constant<value_floats=[1.0,1.0,2.0,2.0]>()  y = Resize<mode="linear">(x, , s)'
    ),
    "a shape read at run time": (
        "s = Shape(x)  z = Constant<value_ints=[0]>()  n = Gather(s, z)"
        "  m = Constant<value_ints=[-1]>()  t = Concat<axis=0>(n, m)  y = Reshape(x, t)"
    ),
    "a shape sliced at run time": (
        "s = Shape<start=0, end=1>(x)  m = Constant<value_ints=[4,12]>()"
        "  t = Concat<axis=0>(s, m)  y = Reshape(x, t)"
    ),
    "a scalar unsqueezed into a shape": (
        "s = Shape(x)  z = Constant<value_int=0>()  n = Gather(s, z)  u = Unsqueeze(n, c[0])"
        "  t = Concat<axis=0>(u, c[48])  y = Reshape(x, t)"
    ),
    "channels last": (
        "a = Transpose<perm=[0,2,3,1]>(x)  b = ReduceMax<keepdims=0>(a, c[1,2])  y = Add(b, row4)"
    ),
    "the batch in the middle": (
        "a = Transpose<perm=[2,3,0,1]>(x)  b = Softmax<axis=-1>(a)"
        "  y = Transpose<perm=[2,3,0,1]>(b)"
    ),
    "a constant for all images": "y = Mul(x, per_channel)",
    "a plane for all images": "z = Sub(x, x)  p = Greater(x, z)  y = Where(p, x, plane)",
    "a constant expanded to the image": "a = Expand(per_channel, c[1,4,2,6])  y = Add(x, a)",
    "the image expanded": "a = Reshape(x, c[1,1,4,12])  y = Expand(a, c[1,3,4,12])",
    "a token for every image": (
        "f = Reshape(x, c[1,8,6])  s = Shape(x)  z = Constant<value_ints=[0]>()  n = Gather(s, z)"
        "  m = Constant<value_ints=[1,6]>()  t = Concat<axis=0>(n, m)  k = Expand(token, t)"
        "  y = Concat<axis=1>(k, f)"
    ),
    "zeros for every image": (
        "s = Shape(x)  z = ConstantOfShape(s)  y = Concat<axis=1>(x, z)"
    ),
    "attention": (
        "q = Reshape(x, c[1,2,4,6])  k = Transpose<perm=[0,1,3,2]>(q)  a = MatMul(q, k)"
        "  p = Softmax<axis=-1>(a)  y = MatMul(p, q)"
    ),
    "dense by Gemm": "f = Reshape(x, c[1,48])  g = Slice(f, c[9], c[21], c[1])  y = Gemm(g, w12x2)",
    "dense by MatMul": "f = Reshape(x, c[1,4,12])  y = MatMul(f, w12x2)",
    "a pixel picked": "y = Gather<axis=2>(x, mid)",
    "channels sliced": "y = Slice(x, c[1], c[3], c[1])",
    "every axis sliced, the batch whole": (
        "y = Slice(x, c[0,1], c[9223372036854775807,3], c[0,1])"
    ),
    "split and joined": "a, b = Split<axis=1, num_outputs=2>(x)  y = Concat<axis=1>(b, a)",
    "padded": "y = Pad(x, c[0,0,1,1,0,0,1,1])",
    "padded on named axes": "y = Pad(x, c[1,1], , c[2])",
    "tiled": "y = Tile(x, c[1,2,1,1])",
    "squeezed": "a = ReduceMax(x, c[2])  y = Squeeze(a, c[2])",
    "unsqueezed": "a = Unsqueeze(x, c[1,3])  y = Squeeze(a, c[3,1])",
    "best class": "f = Reshape(x, c[1,-1])  y = ArgMax<axis=1, keepdims=0>(f)",
    "best classes": "f = Reshape(x, c[1,-1])  y, i = TopK(f, mid)",
    "one-hot of the best": (
        "f = Reshape(x, c[1,-1])  i = ArgMax<axis=1, keepdims=0>(f)  d = Constant<value_int=48>()"
        "  v = Constant<value_floats=[0.0,1.0]>()  y = OneHot(i, d, v)"
    ),
    "layer normalisation": "s = Reshape(token, c[6])  y = LayerNormalization<axis=-1>(x, s)",
    "quantised": (
        "s = Constant<value_float=0.05>()  z = Constant<value=int8 {3}>()"
        "  q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Reshape(d, c[1,-1])"
    ),
    "convolved": "a = Conv(x, kernel)  b = GlobalAveragePool(a)  y = Reshape(b, c[1,4])",
    "noise of a fixed shape": "a = Mul(half, half)  y = Add(x, a)",
}  # fmt: skip

MIXED = {
    "all axes averaged": ("a = ReduceMean<keepdims=1>(x)  y = Mul(x, a)", "acts along the batch"),
    "norm over all": ("a = ReduceL2<keepdims=1>(x)  y = Div(x, a)", "acts along the batch"),
    "softmax over the batch": ("y = Softmax<axis=0>(x)", "acts along the batch"),
    "maximum over the batch": ("a = ReduceMax(x, c[0])  y = Mul(x, a)", "acts along the batch"),
    "batch merged into rows": ("y = Reshape(x, c[4,-1])", "does not begin with the batch"),
    "everything in one row": (
        "a = Reshape(x, c[-1])  b = Softmax<axis=0>(a)  y = Reshape(b, c[1,4,2,6])",
        "acts along the batch",
    ),
    "flatten from axis 0": ("y = Flatten<axis=0>(x)", "does not begin with the batch"),
    "first image gathered": ("y = Gather<axis=0>(x, c[0])", "acts along the batch"),
    "first image sliced": ("y = Slice(x, c[0], c[1], c[0])", "acts along the batch"),
    "Gram matrix": (
        "a = Reshape(x, c[4,12])  t = Transpose(a)  g = MatMul(a, t)  y = Reshape(g, c[1,16])",
        "acts along the batch",
    ),
    "joined with a mean": (
        "m = ReduceMean<keepdims=1>(x, c[0])  y = Concat<axis=1>(x, m)",
        "acts along the batch",
    ),
    "squeezed batch": ("a = Squeeze(x, c[0])  y = Unsqueeze(a, c[0])", "acts along the batch"),
    "squeezed without axes": (
        "m = ReduceMax(x, c[1,2,3])  a = Squeeze(m)  y = Unsqueeze(a, c[0,1])",
        "acts along the batch",
    ),
    "scattered": (
        "i = Constant<value=int64[1,1] {0}>()  u = Reshape(x, c[1,4,2,6])  y = ScatterND(x, i, u)",
        "acts along the batch",
    ),
    "padded batch": (
        "p = Pad(x, c[0,0,0,0,1,0,0,0])  y = ReduceMax(p, c[0])",
        "acts along the batch",
    ),
    "tiled batch": (
        "p = Tile(x, c[2,1,1,1])  y = ReduceMax(p, c[0])",
        "acts along the batch",
    ),
    "scaled batch": (
        's = Constant<value_floats=[2.0,1.0,1.0,1.0]>()  p = Resize<mode="nearest">(x, , s)'
        "  y = ReduceMax(p, c[0])",
        "acts along the batch",
    ),
    "divided by the number of images": (
        "s = Shape<start=0, end=1>(x)  f = Cast<to=1>(s)  y = Div(x, f)",
        "is not known to keep images apart",
    ),
    "a shape with twice the batch": (
        "s = Shape<start=0, end=1>(x)  t = Constant<value_ints=[4]>()  n = Mul(s, t)"
        "  m = Constant<value_ints=[-1]>()  r = Concat<axis=0>(n, m)  y = Reshape(x, r)",
        "does not begin with the batch",
    ),
    "the batch last": (
        "a = Reshape(x, c[1,48])  y = Transpose(a)",
        "does not begin with the batch",
    ),
    "indices of a pool": (
        "p, i = MaxPool<kernel_shape=[2,2]>(x)  f = Cast<to=1>(i)  y = Add(p, f)",
        "count through all images",
    ),
    "a contraction over the images": (
        "a = Reshape(x, c[1,48])  t = Transpose(a)  m = MatMul(t, a)  y = Reshape(m, c[1,2304])",
        "acts along the batch",
    ),
    "a foreign operator": ("y = my.Foreign(x)", "is not known to keep images apart"),
    "control flow that captures the images": (
        "b = IsNaN(half)  y = If (b) <then_branch = t () => (float[1,4,2,6] u)"
        " { u = Relu(x) }, else_branch = e () => (float[1,4,2,6] v) { v = Neg(x) }>",
        "is not known to keep images apart",
    ),
    "nothing of the images": ("a = Sub(half, half)  y = Unsqueeze(a, c[0,1])", "no output depends"),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT_APART)
def test_images_that_are_kept_apart_are_freed(case: str):
    model = _model(KEPT_APART[case])
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    assert [_batch_of(v) for v in (*canonical.graph.input, *canonical.graph.output)] == ["N", "N"]
    images = _images(model, 3)
    apart = [session(model).run(None, {"x": image[None]})[0] for image in images["x"]]
    together = run(canonical, images)["y"]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-5, atol=1e-6)
    for image, expected in zip(images["x"], apart, strict=True):
        alone = run(canonical, {"x": image[None]})["y"]
        np.testing.assert_allclose(alone, expected, rtol=1e-6, atol=1e-7)
    assert not np.allclose(apart[0], apart[1]), "the case cannot tell images apart"


@pytest.mark.parametrize("case", MIXED)
def test_images_that_are_mixed_are_not_freed(case: str, caplog: pytest.LogCaptureFixture):
    body, reason = MIXED[case]
    model = _model(body)
    with caplog.at_level(logging.WARNING, "graph_rewrites"):
        canonical = canonicalize(model)
    assert reason in canonical_facts(canonical)["batch"]
    assert reason in caplog.text
    assert [_batch_of(v) for v in canonical.graph.input] == [1]
    if "my." in body:
        return
    image = _images(model, 1)
    np.testing.assert_allclose(
        run(canonical, image)["y"], session(model).run(None, image)[0], rtol=1e-6, atol=1e-7
    )


def test_batch_statistics_are_refused():
    model = _model("y, m, v = BatchNormalization<training_mode=1>(x, ones4, zeros4, zeros4, ones4)")
    with pytest.raises(ModelError, match=r"BatchNormalization .*training_mode=1.*inference mode"):
        canonicalize(model)


FIXED_AT_THREE = {
    "a Reshape that names the batch": "y = Reshape(x, c[3,-1])",
    "a Reshape that leaves the batch open": "y = Reshape(x, c[-1,48])",
    "an Expand to the whole": "a = Reshape(x, c[3,1,48])  y = Expand(a, c[3,2,48])",
    "sizes of a Resize": 'y = Resize<mode="nearest">(x, , , c[3,4,4,12])',
}


@pytest.mark.parametrize("case", FIXED_AT_THREE)
def test_a_batch_of_three_is_freed(case: str):
    model = _model(FIXED_AT_THREE[case], inputs="float[3,4,2,6] x")
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    images = _images(model, 3)
    expected = session(model).run(None, images)[0]
    np.testing.assert_array_equal(run(canonical, images)["y"], expected)
    for i in range(3):
        alone = run(canonical, {"x": images["x"][i : i + 1]})["y"]
        np.testing.assert_array_equal(alone, expected[i : i + 1])


@pytest.mark.parametrize(
    "body",
    ["y = Add(x, own)", "y = Reshape(x, c[4,-1])", "a = Flatten<axis=2>(x)  y = Relu(a)"],
)
def test_a_batch_of_three_with_something_for_each_image_stays(body: str, monkeypatch):
    own = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1)
    monkeypatch.setitem(WEIGHTS, "own", own)
    model = _model(body, inputs="float[3,4,2,6] x")
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] != "free"
    assert _batch_of(canonical.graph.input[0]) == 3


def test_several_inputs_are_freed_together():
    model = _model(
        "e = Gather(table, i)  m = ReduceMean<keepdims=0>(e, c[1])  f = Reshape(x, c[1,48])"
        "  y = Concat<axis=1>(f, m)",
        inputs="float[1,4,2,6] x, int64[1,5] i",
    )
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    images = _images(model, 3)
    apart = [
        session(model).run(None, {name: value[[at]] for name, value in images.items()})[0]
        for at in range(3)
    ]
    np.testing.assert_allclose(run(canonical, images)["y"], np.concatenate(apart), rtol=1e-6)


def test_inputs_with_different_leading_dimensions_stay():
    model = _model("y = Mul(x, s)", inputs="float[1,4,2,6] x, float[2,1] s")
    reason = canonical_facts(canonicalize(model))["batch"]
    assert reason == "the inputs have different leading dimensions: {'x': 1, 's': 2}"


def test_a_vector_is_no_image():
    model = _model("y = Relu(x)", inputs="float[4] x")
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "no input has a batch dimension"
    assert _batch_of(canonical.graph.input[0]) == 4


@pytest.mark.parametrize("symbol", ["batch_size", "?"])
def test_a_symbolic_batch_stays_as_it_is(symbol: str):
    model = _model("y = Relu(x)", inputs=f"float[{symbol},4] x")
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    assert canonical.graph.input == model.graph.input
    assert canonical.graph.output == model.graph.output


def test_the_symbol_is_new_to_the_model():
    model = _model("y = Relu(x)", inputs="float[1,4,N] x")
    canonical = canonicalize(model)
    assert _batch_of(canonical.graph.input[0]) == _batch_of(canonical.graph.output[0]) == "N_1"


def test_height_and_width_may_be_symbolic():
    model = _model(
        "a = GlobalAveragePool(x)  y = Reshape(a, c[1,4])", inputs="float[1,4,height,width] x"
    )
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    images = np.random.default_rng(0).standard_normal((3, 4, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(
        run(canonical, {"x": images})["y"], images.mean((2, 3)), rtol=1e-5, atol=1e-6
    )


def test_a_shared_shape_is_changed_only_where_it_names_the_batch():
    model = _model("a = Reshape(x, shape)  b = Reshape(ramp, shape)  y = Add(a, b)")
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["batch"] == "free"
    images = _images(model, 3)
    expected = images["x"].reshape(3, 48) + WEIGHTS["ramp"]
    np.testing.assert_array_equal(run(canonical, images)["y"], expected)


def test_what_no_output_needs_does_not_hold_the_batch():
    model = _model("dead = my.Foreign(x)  y = Relu(x)")
    assert canonical_facts(canonicalize(model))["batch"] == "free"


def test_keep_leaves_a_fixed_batch(caplog: pytest.LogCaptureFixture):
    canonical = canonicalize(_model("y = Reshape(x, c[1,-1])"), batch="keep")
    assert canonical_facts(canonical)["batch"] == "keep"
    assert _batch_of(canonical.graph.input[0]) == 1
    assert not caplog.records
