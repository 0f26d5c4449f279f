"""What a backward graph reads where each image has several cotangents."""

import pytest

from graph_rewrites.errors import SeveralTargetsError
from graph_rewrites.graph import Graph
from graph_rewrites.rows import ForwardTensors, Rows

from .samples import graph_of

MIXED = """g (float[N, 4] x, int64[M] index) => (float[N, 4] y)
    <int64[1] first = {0}, float[4] w = {1.0, 2.0, 3.0, 4.0}>
    { size = Shape(x) mean = ReduceMean<keepdims = 1>(x, first) d = Sub(x, mean) y = Mul(d, w) }"""


def forward() -> ForwardTensors:
    graph = Graph(graph_of(MIXED))
    return ForwardTensors(graph, "grad", Rows.of(graph, "index", 2))


def test_images_are_repeated_once() -> None:
    read = forward()
    assert read.read("d") == read.read("d") == "bwd/grad/d/rows"
    (gather,) = [node for node in read.graph.nodes if node.op_type == "Gather"]
    assert gather.inputs == ("d", "index")


def test_weights_and_sizes_are_read_as_they_are() -> None:
    assert [forward().read(name) for name in ("w", "first", "size")] == ["w", "first", "size"]


def test_a_tensor_that_mixes_the_images_is_refused() -> None:
    with pytest.raises(
        SeveralTargetsError, match="'mean' mixes them; explain one target at a time"
    ):
        forward().read("mean")


@pytest.mark.parametrize(
    "node",
    [
        "y = Gather(x, index)",
        "y = GatherElements<axis = 0>(x, indices)",
        "y = GatherND(x, places)",
        "y = ScatterND(x, places, x)",
        "y = Softmax<axis = 0>(x)",
        "y = CumSum(x, first)",
        "y = ReduceMax(x, first)",
        "y, z = TopK<axis = -2>(x, first)",
    ],
)
def test_an_operator_that_works_along_the_images_is_refused(node: str) -> None:
    text = f"""g (float[N, 4] x, int64[N] index, int64[N, 4] indices, int64[N, 1] places)
        => (float[N, 4] y) <int64[1] first = {{0}}> {{ {node} }}"""
    graph = Graph(graph_of(text))
    rows = Rows.of(graph, "index", 2)
    with pytest.raises(SeveralTargetsError, match="works along them; explain one target"):
        rows.require_apart(graph.nodes[0])


@pytest.mark.parametrize(
    "node",
    [
        "y = Gather<axis = 1>(x, index)",
        "y = GatherND<batch_dims = 1>(x, places)",
        "y = Softmax(x)",
        "y = ReduceMax<keepdims = 1>(x, last)",
        "y = Gather(last, index)",
    ],
)
def test_an_operator_that_works_within_each_image_is_not(node: str) -> None:
    text = f"""g (float[N, 4] x, int64[4] index, int64[N, 1] places)
        => (float[N, 4] y) <int64[1] last = {{1}}> {{ {node} }}"""
    graph = Graph(graph_of(text))
    Rows.of(graph, "index", 2).require_apart(graph.nodes[0])
