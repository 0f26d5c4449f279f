"""Dropout and Identity go; nothing is renamed."""

import numpy as np
import pytest

from graph_rewrites.canonical import canonicalize
from graph_rewrites.errors import ModelError
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

X = np.random.default_rng(6).standard_normal((2, 4)).astype(np.float32)


def _operators(body: str, outputs: str = "float[2,4] y", opset: int = 13) -> list[str]:
    model = graph_of(f"agraph (float[2,4] x) => ({outputs}) {{ {body} }}", opset)
    canonical = canonicalize(model)
    assert [v.name for v in canonical.graph.output] == [v.name for v in model.graph.output]
    expected = session(model).run(None, {"x": X})
    for result, wanted in zip(run(canonical, {"x": X}).values(), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)
    return [node.op_type for node in canonical.graph.node]


def test_inner_dropout_and_identity_go():
    body = "a = Relu(x)  b = Dropout(a)  c = Identity(b)  d = Identity(c)  y = Neg(d)"
    assert _operators(body) == ["Relu", "Neg"]


@pytest.mark.parametrize("opset", [7, 10, 12, 13])
def test_dropout_of_every_opset_goes(opset: int):
    assert _operators("a = Dropout(x)  y = Neg(a)", opset=opset) == ["Neg"]


def test_a_dropout_that_names_an_output_leaves_the_name():
    assert _operators("a = Relu(x)  y = Dropout(a)") == ["Relu", "Identity"]


def test_one_tensor_may_be_two_outputs():
    body = "a = Relu(x)  y = Identity(a)  z = Identity(a)"
    assert _operators(body, "float[2,4] y, float[2,4] z") == ["Relu", "Identity", "Identity"]


def test_an_input_may_be_an_output():
    assert _operators("y = Dropout(x)") == ["Identity"]


def test_readers_of_a_removed_output_read_the_original():
    body = "a = Relu(x)  y = Dropout(a)  z = Neg(y)"
    assert _operators(body, "float[2,4] y, float[2,4] z") == ["Relu", "Identity", "Neg"]


def test_a_mask_that_is_read_is_all_ones():
    body = "a, m = Dropout(x)  f = Cast<to=1>(m)  y = Mul(a, f)"
    assert "ConstantOfShape" in _operators(body)


def test_a_mask_that_is_an_output_is_all_ones():
    operators = _operators("y, m = Dropout(x)", "float[2,4] y, bool[2,4] m")
    assert "Dropout" not in operators


def test_an_identity_that_a_subgraph_captures_stays():
    body = (
        "a = Relu(x)  s = Identity(a)  m = ReduceMax<keepdims=0>(x)  c = IsNaN(m)  y = If (c) <"
        "then_branch = p () => (float[2,4] u) { u = Neg(s) },"
        "else_branch = q () => (float[2,4] v) { v = Relu(s) }>"
    )
    assert _operators(body) == ["Relu", "Identity", "ReduceMax", "IsNaN", "If"]


def test_dropout_in_training_mode_is_refused():
    model = graph_of(
        "agraph (float[2,4] x) => (float[2,4] y) {"
        " r = Constant<value_float=0.5>()  t = Constant<value = bool {1}>()"
        " y = Dropout(x, r, t) }",
        opset=13,
    )
    with pytest.raises(ModelError, match=r"training mode of Dropout .* is on; .*inference mode"):
        canonicalize(model)


def test_dropout_whose_mode_is_an_input_is_refused():
    model = graph_of(
        "agraph (float[2,4] x, bool t) => (float[2,4] y) {"
        " r = Constant<value_float=0.5>()  y = Dropout(x, r, t) }",
        opset=13,
    )
    with pytest.raises(ModelError, match="decided at run time"):
        canonicalize(model)
