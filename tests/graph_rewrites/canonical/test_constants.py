"""Constants: lifted, folded where that makes nothing larger, and left where it would."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graph_rewrites.canonical import canonicalize
from graph_rewrites.graph import Graph
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(4)


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


FORMS = {
    "value": ({"value": numpy_helper.from_array(np.arange(4, dtype=np.float32))}, [0, 1, 2, 3]),
    "value_float": ({"value_float": 2.5}, 2.5),
    "value_floats": ({"value_floats": [1.0, 2.0, 3.0, 4.0]}, [1, 2, 3, 4]),
    "value_int": ({"value_int": 3}, 3),
    "value_ints": ({"value_ints": [4, 3, 2, 1]}, [4, 3, 2, 1]),
    "value_string": ({"value_string": "é"}, "é"),
    "value_strings": ({"value_strings": ["a", "b"]}, ["a", "b"]),
    "sparse_value": (
        {
            "sparse_value": helper.make_sparse_tensor(
                helper.make_tensor("v", TensorProto.FLOAT, [2], [5.0, 7.0]),
                helper.make_tensor("i", TensorProto.INT64, [2], [1, 3]),
                [4],
            )
        },
        [0, 5, 0, 7],
    ),
    "sparse_value by coordinates": (
        {
            "sparse_value": helper.make_sparse_tensor(
                helper.make_tensor("v", TensorProto.FLOAT, [2], [5.0, 7.0]),
                helper.make_tensor("i", TensorProto.INT64, [2, 2], [0, 1, 1, 0]),
                [2, 2],
            )
        },
        [[0, 5], [7, 0]],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_constant_becomes_an_initializer(form: str):
    attributes, expected = FORMS[form]
    node = helper.make_node("Constant", [], ["c"], **attributes)
    node.doc_string = "why"
    node.metadata_props.add(key="k", value="v")
    model = graph_of("agraph (float[1,4] x) => (float[1,4] y) { y = my.Foreign(x, c) }")
    model.graph.node.insert(0, node)
    canonical = canonicalize(model)
    assert _operators(canonical) == ["Foreign"]
    (tensor,) = canonical.graph.initializer
    assert tensor.name == "c"
    assert numpy_helper.to_array(tensor).tolist() == expected
    assert (tensor.doc_string, tensor.metadata_props[0].value) == ("why", "v")


def test_a_bulky_constant_is_lifted_whole():
    value = RNG.standard_normal((64, 64)).astype(np.float32)
    node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(value, "other"))
    model = graph_of("agraph (float[1,64] x) => (float[1,64] y) { y = MatMul(x, c) }")
    model.graph.node.insert(0, node)
    (tensor,) = canonicalize(model).graph.initializer
    assert tensor.name == "c"
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), value)


def test_a_constant_that_is_an_output_stays_a_node():
    model = graph_of(
        "agraph (float[1,2] x) => (float[1,2] y, float[2] c)"
        " { c = Constant<value_floats=[1.0,2.0]>()  y = Add(x, c) }"
    )
    canonical = canonicalize(model)
    assert _operators(canonical) == ["Constant", "Add"]
    result = run(canonical, {"x": np.zeros((3, 2), np.float32)})
    assert result["c"].tolist() == [1.0, 2.0]


FOLDED = {
    "transposed": "v = Transpose(w)",
    "reshaped": "s = Constant<value_ints=[8,4]>()  v = Reshape(w, s)",
    "unsqueezed": "a = Constant<value_ints=[0]>()  v = Unsqueeze(w, a)",
    "shared by Identity": "v = Identity(w)",
    "scaled": "k = Constant<value_float=3.0>()  v = Mul(w, k)",
    "narrowed": "d = Cast<to=11>(w)  v = Cast<to=1>(d)",
}


@pytest.mark.parametrize(
    "case", ["transposed", "reshaped", "unsqueezed", "shared by Identity", "scaled"]
)
def test_weights_behind_operators_are_folded_under_their_name(case: str):
    model = graph_of(
        f"agraph (float[1,8,8] x) => (float[?,?,?] y) {{ {FOLDED[case]}  y = MatMul(x, v) }}",
        w=RNG.standard_normal((4, 8) if case == "transposed" else (8, 4)).astype(np.float32),
    )
    canonical = canonicalize(model)
    assert _operators(canonical) == ["MatMul"]
    (tensor,) = canonical.graph.initializer
    assert tensor.name == ("w" if "Identity" in case else "v")
    x = RNG.standard_normal((1, 8, 8)).astype(np.float32)
    expected = session(model).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(canonical, {"x": x})["y"], expected)


LEFT = {
    "a weight that others read": ("v = Transpose(w)  u = Add(v, w)", (8, 8)),
    "an expansion": (
        "s = Constant<value_ints=[64,8,8]>()  v = Expand(w, s)  u = ReduceMax(v)",
        (8, 8),
    ),
    "bytes made floats": ("v = Cast<to=1>(w)  u = Relu(v)", (8, 8)),
    "dequantised weights": (
        "k = Constant<value_float=0.1>()  v = DequantizeLinear(w, k)  u = Relu(v)",
        (8, 8),
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_would_grow_the_file_is_left_to_the_runtime(case: str):
    text, shape = LEFT[case]
    kind = np.uint8 if case in ("bytes made floats", "dequantised weights") else np.float32
    model = graph_of(
        f"agraph (float[1,8,8] x) => (float[?,?,?] y) {{ {text}  y = Add(x, u) }}",
        w=RNG.uniform(0, 9, shape).astype(kind),
    )
    canonical = canonicalize(model)
    assert _operators(canonical) == [
        node.op_type for node in model.graph.node if node.op_type != "Constant"
    ]
    assert canonical.ByteSize() <= model.ByteSize() + 200


def test_sixteen_bit_weights_behind_a_cast_stay_so():
    model = graph_of(
        "agraph (float[1,8] x) => (float[1,8] y) { v = Cast<to=1>(w)  y = MatMul(x, v) }",
        w=RNG.standard_normal((8, 8)).astype(np.float16),
    )
    canonical = canonicalize(model)
    assert _operators(canonical) == ["Cast", "MatMul"]
    assert canonical.graph.initializer[0].data_type == TensorProto.FLOAT16


def test_shape_arithmetic_on_known_sizes_is_folded_and_the_batch_is_not():
    model = graph_of(
        "agraph (float[1,4,6,8] x) => (float[?,?] y) {"
        " s = Shape(x)  i = Constant<value_int=0>()  n = Gather(s, i)"
        " a = Constant<value_ints=[0]>()  u = Unsqueeze(n, a)"
        " h = Shape<start=1, end=4>(x)  k = Constant<value_ints=[0,1,2]>()"
        " p = Gather(h, k)  m = ReduceProd<keepdims=1>(p)  t = Concat<axis=0>(u, m)"
        " y = Reshape(x, t) }"
    )
    canonical = canonicalize(model)
    assert _operators(canonical) == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]
    images = RNG.standard_normal((3, 4, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(canonical, {"x": images})["y"], images.reshape(3, -1))


def test_a_kept_batch_is_a_known_size_too():
    model = graph_of(
        "agraph (float[1,4,6] x) => (float[?,?,?] y)"
        " { s = Shape(x)  a = Reshape(x, s)  y = Relu(a) }"
    )
    assert _operators(canonicalize(model, batch="keep")) == ["Reshape", "Relu"]
    assert _operators(canonicalize(model)) == ["Shape", "Reshape", "Relu"]


def test_sizes_that_were_computed_are_known_to_those_who_come_after():
    model = graph_of(
        "agraph (float[N,4,6] x) => (float[?,?] y) {"
        " s = Shape<start=1>(x)  p = ReduceProd<keepdims=1>(s)  m = Constant<value_ints=[-1]>()"
        " t = Concat<axis=0>(m, p)  y = Reshape(x, t) }"
    )
    graph = Graph(canonicalize(model))
    assert (graph.shape("y") or ())[1] == 24


def test_what_the_reference_cannot_compute_stays():
    model = graph_of(
        "agraph (float[1,4] x) => (float[?,?] y) {"
        " s = Constant<value_ints=[3,5]>()  v = Reshape(w, s)  y = MatMul(x, v) }",
        w=np.ones(4, np.float32),
    )
    assert "Reshape" in _operators(canonicalize(model))


def test_external_weights_are_not_looked_at():
    model = graph_of(
        "agraph (float[1,4] x) => (float[1,4] y) { v = Transpose(w)  y = MatMul(x, v) }", 13
    )
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    canonical = canonicalize(model)
    assert _operators(canonical) == ["Transpose", "MatMul"]
    assert canonical.graph.initializer[0] == tensor
