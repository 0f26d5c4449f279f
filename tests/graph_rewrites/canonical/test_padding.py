"""Automatic padding spelled out, compared with the runtime's own."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graph_rewrites.canonical import canonicalize
from graph_rewrites.errors import UnknownShapeError, UnsupportedOperatorError
from tests.graph_rewrites.runtime import run, session

RNG = np.random.default_rng(2)


def _windowed(op_type: str, size: tuple[int | str, ...], **attributes: object) -> onnx.ModelProto:
    weights = ["w"] if op_type.startswith("Conv") else []
    kernel = attributes["kernel_shape"] if weights else None
    rank = len(size)
    initializers = [
        numpy_helper.from_array(RNG.standard_normal((2, 2, *kernel)).astype(np.float32), "w")  # type: ignore[misc]
        for _ in weights
    ]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", *weights], ["y"], name="window", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 2, *size])],
        [helper.make_tensor_value_info("y", 1, [None] * (rank + 2))],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _agree(model: onnx.ModelProto, size: tuple[int, ...]) -> onnx.NodeProto:
    canonical = canonicalize(model)
    (node,) = canonical.graph.node
    given = {attribute.name for attribute in node.attribute}
    assert not given & {"auto_pad", "output_shape"}
    feeds = {"x": RNG.standard_normal((2, 2, *size)).astype(np.float32)}
    expected = session(model).run(None, feeds)[0]
    np.testing.assert_allclose(run(canonical, feeds)["y"], expected, rtol=1e-6, atol=1e-6)
    return node


WINDOWS = [
    (op_type, mode, size, kernel, stride)
    for op_type, mode in itertools.product(
        ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"),
        ("SAME_UPPER", "SAME_LOWER", "VALID"),
    )
    for size, kernel, stride in [
        ((7, 8), (3, 2), (2, 3)),
        ((9, 6), (4, 3), (1, 1)),
        ((5, 12), (1, 5), (2, 2)),
        ((11,), (4,), (3,)),
        ((5, 6, 7), (3, 2, 3), (2, 2, 1)),
    ]
]


@pytest.mark.parametrize(("op_type", "mode", "size", "kernel", "stride"), WINDOWS)
def test_windows_keep_their_numbers(op_type, mode, size, kernel, stride):
    model = _windowed(op_type, size, auto_pad=mode, kernel_shape=kernel, strides=stride)
    _agree(model, size)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_the_mean_over_the_border_stays(mode: str, count_include_pad: int):
    settings = {"auto_pad": mode, "count_include_pad": count_include_pad, "ceil_mode": 1}
    model = _windowed("AveragePool", (7, 8), kernel_shape=(3, 4), strides=(2, 3), **settings)
    _agree(model, (7, 8))


def test_valid_pools_that_round_up_go_on_rounding_up():
    node = _agree(
        _windowed(
            "MaxPool", (8, 8), auto_pad="VALID", kernel_shape=(3, 3), strides=(2, 2), ceil_mode=1
        ),
        (8, 8),
    )
    assert {a.name for a in node.attribute} == {"kernel_shape", "strides", "pads", "ceil_mode"}


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("wanted", [(14, 16), (15, 15), (13, 17)])
def test_the_output_shape_of_a_transposed_convolution_becomes_pads(mode: str, wanted):
    model = _windowed(
        "ConvTranspose",
        (7, 8),
        auto_pad=mode,
        kernel_shape=(3, 3),
        strides=(2, 2),
        output_shape=wanted,
    )
    _agree(model, (7, 8))


def test_the_kernel_is_read_off_the_weight():
    model = _windowed("Conv", (7, 8), auto_pad="SAME_UPPER", kernel_shape=(4, 2), strides=(2, 2))
    del model.graph.node[0].attribute[1]
    node = _agree(model, (7, 8))
    pads = next(a.ints for a in node.attribute if a.name == "pads")
    assert list(pads) == [1, 0, 2, 0]


def test_stride_one_needs_no_size():
    model = _windowed("Conv", ("h", "w"), auto_pad="SAME_UPPER", kernel_shape=(3, 4))
    _agree(model, (5, 6))


def test_an_open_size_is_an_error_with_a_remedy():
    model = _windowed(
        "MaxPool", ("h", "w"), auto_pad="SAME_UPPER", kernel_shape=(3, 3), strides=(2, 2)
    )
    with pytest.raises(UnknownShapeError) as caught:
        canonicalize(model)
    assert str(caught.value) == (
        "MaxPool (node 'window', output 'y', opset 18) pads automatically, and its input 'x' of "
        "shape (2, 2, 'h', 'w') leaves the size open that the pads depend on; give the model's "
        "inputs a fixed height and width, or export it with explicit pads"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_shape": (3, 3), "dilations": (2, 2)},
        {"kernel_shape": (1, 1), "strides": (4, 4)},
    ],
)
def test_where_runtimes_disagree_the_model_is_refused(settings):
    model = _windowed("MaxPool", (12, 12), auto_pad="SAME_UPPER", **settings)
    with pytest.raises(UnsupportedOperatorError, match=r"node 'window'.*disagree.*explicit pads"):
        canonicalize(model)


def test_explicit_pads_stay_as_they_are():
    model = _windowed("Conv", (7, 8), kernel_shape=(3, 3), pads=(0, 1, 2, 1))
    assert canonicalize(model).graph.node[0].attribute == model.graph.node[0].attribute
