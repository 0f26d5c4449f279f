"""The proof that a batch may run together: it must catch every way in which images mix."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer.batching import Batching, distinct_pair, prove, run_all
from analyzer.image_input import ImageInput, find_image_input
from analyzer.preprocess import PRESETS, Preprocess
from analyzer.session import Session

IMAGE = ImageInput("x", "float32", "NCHW", 3, 8, 8)
PAIR = distinct_pair(IMAGE, PRESETS["tf"].fit(IMAGE))


def model(*nodes, batch="N", constants=(), output=TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def proof(*nodes, **keys) -> Batching:
    return prove(Session(model(*nodes, **keys)), "x", PAIR)


def test_the_pair_differs_and_is_preprocessed():
    assert PAIR.shape == (2, 3, 8, 8)
    assert np.abs(PAIR[0] - PAIR[1]).mean() > 0.1
    assert -1 <= PAIR.min() < PAIR.max() <= 1
    open_size = ImageInput("x", "float32", "NCHW", 3, None, None)
    assert distinct_pair(open_size, Preprocess().fit(open_size)).shape == (2, 3, 224, 224)
    bands = ImageInput("x", "float32", "NHWC", 5, 4, 6)
    assert distinct_pair(bands, Preprocess().fit(bands)).shape == (2, 4, 6, 5)
    raw = ImageInput("x", "uint8", "NHWC", 3, 4, 6)
    assert distinct_pair(raw, Preprocess().fit(raw)).dtype == np.uint8


def test_independent_images_are_free():
    found = proof(helper.make_node("Relu", ["x"], ["y"]))
    assert found.free
    assert "same outputs" in found.reason


MIXERS = {
    "mean over all axes": [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ],
    "softmax over the batch": [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
    "reversed batch": [helper.make_node("Slice", ["x", "from", "to", "axis", "step"], ["y"])],
    "shuffled through a reshape": [
        helper.make_node("Reshape", ["x", "flat"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0]),
        helper.make_node("Reshape", ["t", "back"], ["y"]),
    ],
}
CONSTANTS = (
    ("from", np.array([-1])),
    ("to", np.array([-1000])),
    ("axis", np.array([0])),
    ("step", np.array([-1])),
    ("flat", np.array([-1, 64])),
    ("back", np.array([-1, 3, 8, 8])),
)


@pytest.mark.parametrize("nodes", MIXERS.values(), ids=MIXERS.keys())
def test_mixing_images_is_caught(nodes):
    used = {name for node in nodes for name in node.input}
    found = proof(*nodes, constants=[c for c in CONSTANTS if c[0] in used])
    assert not found.free
    assert "differ" in found.reason


def test_equal_images_would_have_hidden_it():
    """Why the pair is distinct: the reversed batch looks right with twins."""
    nodes = MIXERS["reversed batch"]
    used = {name for node in nodes for name in node.input}
    session = Session(model(*nodes, constants=[c for c in CONSTANTS if c[0] in used]))
    twins = np.stack([PAIR[0], PAIR[0]])
    assert prove(session, "x", twins).free


def test_lost_batch_axis_is_caught():
    found = proof(helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0))
    assert not found.free
    assert "batch axis" in found.reason


def test_a_model_that_cannot_run_two_is_caught():
    found = proof(
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        constants=[("shape", np.array([1, 3, 64]))],
    )
    assert not found.free
    assert "do not run together" in found.reason


def test_one_step_in_an_integer_output_is_caught():
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=1),
        helper.make_node("Mul", ["m", "small"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["y"]),
    ]
    constants = [
        ("small", np.float32(0.1)),
        ("scale", np.float32(0.01)),
        ("zero", np.uint8(128)),
    ]
    assert not proof(*nodes, constants=constants, output=TensorProto.UINT8).free
    alone = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    assert proof(alone, constants=constants[1:], output=TensorProto.UINT8).free


class Counter:
    """A session that records how many images each run took."""

    def __init__(self, fixed=None):
        self.sizes = []
        self.fixed = fixed

    def run(self, inputs, outputs=None):
        x = inputs["x"]
        assert self.fixed is None or len(x) == self.fixed
        self.sizes.append(len(x))
        assert len(inputs["target"]) == len(x)
        return {"y": x * 2}

    def run_size(self, picture, size):
        return size or 8

    def run_each(self, batches):
        return [self.run(inputs) for inputs in batches]


@pytest.mark.parametrize(
    ("batching", "size", "runs"),
    [
        (Batching(None, False, ""), 4, [4, 4, 4]),
        (Batching(None, False, ""), 16, [10]),
        (Batching(None, False, ""), None, [5, 5]),
        (Batching(None, False, ""), 9, [5, 5]),
        (Batching(None, True, ""), 4, [1] * 10),
        (Batching(1, True, ""), None, [1] * 10),
        (Batching(3, True, ""), None, [3] * 10),
    ],
)
def test_every_image_runs_once_and_in_order(batching, size, runs):
    session = Counter(batching.fixed)
    x = np.arange(10, dtype=np.float32)[:, None]
    found = run_all(session, {"x": x, "target": np.zeros(10)}, batching, size)
    np.testing.assert_array_equal(found["y"], x * 2)
    assert session.sizes == runs


def test_the_image_input_of_the_test_models():
    assert find_image_input(model(helper.make_node("Relu", ["x"], ["y"]))) == IMAGE
