"""A contiguous strided view becomes a Reshape; one that moves numbers stays a Gather."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import graph_rewrites as gr
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import graph_of


def as_strided(order: str) -> onnx.ModelProto:
    """What PyTorch's exporter makes of `as_strided`: (N, 3, 2) seen as (N, 6) or otherwise."""
    count = len(order.split(","))
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>'
        f" g (float[N, 3, 2] x) => (float[N, {count}] y)"
        f" <int64[1] all = {{-1}}, int64[{count}] steps = {{{order}}}, int64 zero = {{0}},"
        " int64 one = {1}, int64[1] tail = {1}, int64 six = {6}> {"
        " flat = Reshape(x, all) s = Shape <start = 0, end = 1> (x) n = Squeeze(s)"
        " rows = Range(zero, n, one) starts = Mul(rows, six) column = Unsqueeze(starts, tail)"
        " index = Add(column, steps) v = Gather <axis = 0> (flat, index) y = Mul(v, v) }"
    )


def test_a_view_of_a_fixed_batch_is_straightened_and_freed() -> None:
    model = as_strided("0, 1, 2, 3, 4, 5")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    canonical = gr.canonicalize(model)
    assert [node.op_type for node in canonical.graph.node] == ["Reshape", "Mul"]
    x = np.random.default_rng(0).normal(size=(3, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(run(canonical, {"x": x})["y"], x.reshape(3, 6) ** 2)


@pytest.mark.parametrize(
    ("order", "kept"),
    [
        ("0, 1, 2, 3, 4, 5", False),
        ("1, 0, 2, 3, 4, 5", True),
        ("0, 2, 4", True),  # a part of the numbers
        ("0, 1, 2, 3, 4, 5, 0", True),  # more than there are
    ],
)
def test_only_the_order_decides(order: str, kept: bool) -> None:
    model = as_strided(order)
    canonical = gr.canonicalize(model)
    assert ("Gather" in {node.op_type for node in canonical.graph.node}) == kept
    x = np.random.default_rng(0).normal(size=(3, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(run(canonical, {"x": x})["y"], run(model, {"x": x})["y"])


@pytest.mark.parametrize("index", [7, [0], [3, 1]])
def test_a_few_numbers_taken_from_a_fixed_batch(index: int | list[int]) -> None:
    """`x.reshape(-1)[7]` and `torch.take`."""
    model = graph_of(
        "agraph (float[1,3,4] x) => (float y)"
        " { flat = Reshape(x, all)  v = Gather(flat, index)  y = Neg(v) }",
        all=np.array([-1]),
        index=np.array(index),
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, np.shape(index)))
    x = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    y = run(gr.canonicalize(model), {"x": x})["y"]
    np.testing.assert_array_equal(y, -x.reshape(-1)[index])


def test_an_index_that_reads_another_size_is_left_alone() -> None:
    """As in Swin: weights gathered by an index made of the batch of the pictures."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>'
        " g (float[N, 4] x) => (float[M] y)"
        " <float[2, 3] w = {1, 2, 3, 4, 5, 6}, int64[1] all = {-1}, int64 zero = {0},"
        " int64 one = {1}> {"
        " flat = Reshape(w, all) s = Shape <start = 0, end = 1> (x) n = Squeeze(s)"
        " index = Range(zero, n, one) y = Gather <axis = 0> (flat, index) }"
    )
    x = np.zeros((5, 4), np.float32)
    np.testing.assert_array_equal(run(gr.canonicalize(model), {"x": x})["y"], [1, 2, 3, 4, 5])
