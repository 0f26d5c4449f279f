"""What rules write with: one node per call, one constant per value."""

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph

from .samples import graph_of


def emitter() -> Emitter:
    return Emitter(Graph(graph_of("g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }")), "scope")


def test_omitted_last_inputs_are_left_out() -> None:
    op = emitter()
    for made, inputs in ((op.Clip("x", None, None), 1), (op.Clip("x", None, 1.0), 3)):
        node = op.graph.producer(made)
        assert node is not None
        assert len(node.inputs) == inputs


def test_constants_are_shared_where_value_shape_and_type_are_the_same() -> None:
    op = emitter()
    assert op.constant([1, 2], np.int64) == op.constant([1, 2], np.int64)
    many = [np.arange(9) + i for i in range(40)]
    values = [([1, 2], np.int64), ([[1, 2]], np.int64), ([1, 2], np.float32), (1.0, np.float32)]
    names = [op.constant(value, dtype) for value, dtype in values]
    names += [op.constant(value, np.int64) for value in many]
    assert len(set(names)) == len(values) + len(many)
    stored = op.graph.constant(names[-1])
    assert stored is not None
    np.testing.assert_array_equal(stored, many[-1])


def test_an_array_keeps_its_type() -> None:
    op = emitter()
    node = op.graph.producer(op.Gather("x", np.array([0, 1]), axis=1))
    assert node is not None
    indices = op.graph.constant(node.inputs[1])
    assert indices is not None and indices.dtype == np.int64


def test_no_name_is_given_twice() -> None:
    op = emitter()
    assert [op.Neg("x"), op.Neg("x"), op.Neg("x")] == ["scope/Neg", "scope/Neg_2", "scope/Neg_3"]
