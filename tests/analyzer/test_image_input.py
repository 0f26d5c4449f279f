"""Which input takes pictures, and how it lays them out."""

import onnx
import pytest
from onnx import TensorProto, helper

import graph_rewrites as gr
from analyzer.errors import ModelRejectedError
from analyzer.image_input import find_image_input, model_inputs
from tests.analyzer.small_models import cnn


def model(shape, dtype=TensorProto.FLOAT, nodes=None, extra=(), initializer=()) -> onnx.ModelProto:
    nodes = nodes or [helper.make_node("Relu", ["x"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", dtype, shape), *extra]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializer))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("shape", "layout", "channels", "size"),
    [
        ((1, 3, 224, 224), "NCHW", 3, (224, 224)),
        (("N", 224, 224, 3), "NHWC", 3, (224, 224)),
        ((1, 1, 28, 28), "NCHW", 1, (28, 28)),
        (("N", 3, "h", "w"), "NCHW", 3, (None, None)),
        ((None, None, None, 3), "NHWC", 3, (None, None)),
    ],
)
def test_layout_by_shape(shape, layout, channels, size):
    found = find_image_input(model(shape))
    assert (found.layout, found.channels, (found.height, found.width)) == (layout, channels, size)


def test_layout_by_use():
    shape = (1, 3, 8, 3)
    conv = [helper.make_node("Mul", ["x", "c"], ["m"]), helper.make_node("Conv", ["m", "w"], ["y"])]
    assert find_image_input(model(shape, nodes=conv)).layout == "NCHW"
    turned = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
    ]
    assert find_image_input(model(shape, nodes=turned)).layout == "NHWC"
    with pytest.raises(ModelRejectedError, match="layout"):
        find_image_input(model(shape))
    assert find_image_input(model(shape), layout="NHWC").layout == "NHWC"


def test_five_bands():
    conv = [helper.make_node("Conv", ["x", "w"], ["y"])]
    assert find_image_input(model((1, 5, 8, 8), nodes=conv)).channels == 5


@pytest.mark.parametrize(
    "shape", [(1, 10), (1, 3, 8), (1, 3, 4, 8, 8), None], ids=["flat", "signal", "volume", "open"]
)
def test_other_inputs_are_refused(shape):
    with pytest.raises(ModelRejectedError, match="takes no image") as caught:
        find_image_input(model(shape))
    assert caught.value.exit_code == 4


MASK = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1])]


def test_a_second_input_is_refused_by_name():
    with pytest.raises(ModelRejectedError, match="'x', 'mask'"):
        find_image_input(model((1, 3, 8, 8), extra=MASK))


def test_no_input_is_refused():
    without = model((1, 3, 8, 8))
    del without.graph.input[:]
    with pytest.raises(ModelRejectedError, match=r"^m\.onnx: it has no input") as caught:
        find_image_input(without, name="m.onnx")
    assert "bind" not in str(caught.value)


@pytest.mark.parametrize("objective", ["class", "similarity"])
def test_an_explanation_model_is_no_original(objective):
    built = gr.explanation_model(cnn(), "saliency", objective=objective)
    with pytest.raises(ModelRejectedError, match=r"^m\.onnx: .*explanation model.* the original"):
        find_image_input(built, name="m.onnx")


def test_refusals_name_the_file():
    for refused in (model((1, 10)), model((1, 3, 8, 3)), model((1, 3, 8, 8), extra=MASK)):
        with pytest.raises(ModelRejectedError, match=r"^m\.onnx: "):
            find_image_input(refused, name="m.onnx")


def test_open_channels_are_refused():
    with pytest.raises(ModelRejectedError, match="channels is open"):
        find_image_input(model((1, None, 8, 8)), layout="NCHW")


def test_initializers_listed_as_inputs_are_no_inputs():
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    extra = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])]
    found = model((1, 3, 8, 8), extra=extra, initializer=[weight])
    assert [i.name for i in model_inputs(found)] == ["x"]
    assert find_image_input(found).name == "x"


def test_descriptions():
    (found,) = model_inputs(model(("N", 8, 8, 3), TensorProto.UINT8))
    assert (found.dtype, found.shape) == ("uint8", ("N", 8, 8, 3))
