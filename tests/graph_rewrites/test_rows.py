"""What a backward graph reads where each image has several cotangents."""

import pytest

from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.rows import ForwardTensors, Rows

from .samples import graph_of

MIXED = """g (float[N, 4] x, int64[M] index) => (float[N, 4] y)
    <int64[1] first = {0}, float[4] w = {1.0, 2.0, 3.0, 4.0}>
    { size = Shape(x) mean = ReduceMean<keepdims = 1>(x, first) d = Sub(x, mean) y = Mul(d, w) }"""


def forward() -> ForwardTensors:
    graph = Graph(graph_of(MIXED))
    return ForwardTensors(graph, "grad", Rows.of(graph, "index"))


def test_images_are_repeated_once() -> None:
    read = forward()
    assert read.read("d") == read.read("d") == "bwd/grad/d/rows"
    (gather,) = [node for node in read.graph.nodes if node.op_type == "Gather"]
    assert gather.inputs == ("d", "index")


def test_weights_and_sizes_are_read_as_they_are() -> None:
    assert [forward().read(name) for name in ("w", "first", "size")] == ["w", "first", "size"]


def test_a_tensor_that_mixes_the_images_is_refused() -> None:
    with pytest.raises(ModelError, match="'mean' mixes them; explain one target at a time"):
        forward().read("mean")
