"""Windows: how many there are, and the transposed convolution that spreads them."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnknownShapeError
from graph_rewrites.graph import Graph
from graph_rewrites.rules.linear import conv_vjp
from graph_rewrites.windows import Window


def one_node(op: str, shape: tuple, weight: tuple | None = None, **attrs) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    constants = []
    if weight:
        ones = np.ones(weight, np.float32)
        constants.append(onnx.numpy_helper.from_array(ones, "w"))
    node = helper.make_node(op, ["x", "w"] if weight else ["x"], ["y"], **attrs)
    rank = [None] * len(shape)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, rank)]
    graph = helper.make_graph([node], "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=9)


def window_of(model: onnx.ModelProto) -> Window:
    graph = Graph(model)
    (node,) = graph.nodes
    return Window.of(node)


@pytest.mark.parametrize(("op", "ceil"), [("MaxPool", 0), ("MaxPool", 1), ("AveragePool", 1)])
def test_counts_are_the_runtimes(op: str, ceil: int) -> None:
    for size, kernel, stride, begin, end, dilation in itertools.product(
        (5, 6), (2, 3), (1, 2, 3), (0, 1), (0, 1, 2), (1, 2)
    ):
        if end >= kernel:  # the runtime refuses pads as wide as the kernel
            continue
        window = {"kernel_shape": [kernel], "strides": [stride], "dilations": [dilation]}
        model = one_node(op, (1, 1, size), pads=[begin, end], ceil_mode=ceil, **window)
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (y,) = session.run(None, {"x": np.zeros((1, 1, size), np.float32)})
        assert window_of(model).counts([size]) == [y.shape[2]], (size, window, begin, end)


def test_counts_of_run_time_sizes_are_left_to_run_time() -> None:
    assert window_of(one_node("MaxPool", ("N", 1, "H"), kernel_shape=[2])).counts("sizes") is None


def test_a_transposed_window_has_pads_that_cuda_can_run_and_reaches_far_enough() -> None:
    for size, kernel, stride, begin, end, dilation in itertools.product(
        (7, 8, 9), (1, 2, 3), (1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3), (1, 2)
    ):
        window = Window((kernel,), (stride,), (dilation,), (begin,), (end,))
        (count,) = window.counts([size])
        for known in (size, "H"):
            turned = window.transposed([known])
            (pad,), (extra,), (start,) = turned.pads, turned.output_padding, turned.starts
            reached = (count - 1) * stride + window.extents[0] - 2 * pad + extra
            assert 0 <= extra < stride
            assert start >= 0
            assert reached >= start + size
            assert not turned.exact or (start == 0 and reached == size)


@pytest.mark.parametrize(
    ("shape", "attrs", "operators"),
    [
        (("N", 2, 8, 8), {"pads": [1, 1, 1, 1]}, ["ConvTranspose"]),
        (("N", 2, "H", "W"), {"pads": [1, 1, 1, 1]}, ["ConvTranspose"]),
        (("N", 2, 8, 8), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, ["ConvTranspose"]),
        (("N", 2, 8, 8), {"pads": [0, 0, 1, 1], "strides": [2, 2]}, ["ConvTranspose", "Slice"]),
        (("N", 2, 8, 8), {"pads": [1, 1, 0, 0]}, ["ConvTranspose", "Slice"]),
        (("N", 2, "H", 8), {"strides": [2, 2]}, ["ConvTranspose", "Shape", "Slice"]),
    ],
)
def test_a_convolution_is_cropped_only_where_it_must_be(shape, attrs, operators) -> None:
    graph = Graph(one_node("Conv", shape, (3, 2, 3, 3), **attrs))
    (node,) = graph.nodes
    conv_vjp(Emitter(graph, "bwd"), node, ["y"])
    assert [emitted.op_type for emitted in graph.nodes[1:]] == operators


def test_the_kernel_is_read_off_the_weight() -> None:
    assert window_of(one_node("Conv", ("N", 2, 8, 8), (3, 2, 5, 4))).kernel == (5, 4)


def test_a_kernel_that_nobody_knows_is_an_error() -> None:
    model = one_node("Conv", ("N", 2, 8, 8))
    model.graph.input.add(
        name="w",
        type=helper.make_tensor_type_proto(TensorProto.FLOAT, [3, 2, "K", 3]),
    )
    model.graph.node[0].input.append("w")
    with pytest.raises(UnknownShapeError, match="'w' has shape"):
        window_of(model)
