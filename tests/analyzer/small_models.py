"""Small networks with random weights, in the shapes in which files come."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


def _weights(seed: int) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    arrays = {
        "w1": rng.standard_normal((8, 3, 3, 3)) * 0.3,
        "b1": rng.standard_normal(8) * 0.1,
        "w2": rng.standard_normal((12, 8, 3, 3)) * 0.15,
        "b2": rng.standard_normal(12) * 0.1,
        "w3": rng.standard_normal((CLASSES, 12)) * 0.5,
        "b3": rng.standard_normal(CLASSES) * 0.1,
    }
    return [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]


def cnn(
    batch: int | str = 1,
    size: tuple[int | str, int | str] = (16, 16),
    activation: str = "Relu",
    seed: int = 0,
    head: str = "Softmax",
    flatten: tuple[int, ...] = (1, 12),
) -> onnx.ModelProto:
    """NCHW float32: two convolutions, global average pool, dense, softmax."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["c1"], ["a1"], name="act1"),
        helper.make_node(
            "Conv", ["a1", "w2", "b2"], ["c2"], name="conv2", strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node(activation, ["c2"], ["a2"], name="act2"),
        helper.make_node("GlobalAveragePool", ["a2"], ["p"], name="pool"),
        helper.make_node("Reshape", ["p", "flat"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], name="dense", transB=1),
        helper.make_node(head, ["logits"], ["prob"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, [batch, CLASSES])],
        [*_weights(seed), numpy_helper.from_array(np.array(flatten), "flat")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def bytes_in(seed: int = 0) -> onnx.ModelProto:
    """The same network behind a uint8 NHWC input, as mobile exports have it."""
    model = cnn(batch=1, seed=seed)
    graph = model.graph
    before = [
        helper.make_node("Cast", ["bytes"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "step"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["x"], perm=[0, 3, 1, 2]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.float32(1 / 64), "step"))
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, 16, 16, 3])
    )
    return model


def mixing(batch: int | str = "N") -> onnx.ModelProto:
    """Images influence each other: the logits are scaled by their mean over the batch."""
    model = cnn(batch=batch, flatten=(-1, 12))
    graph = model.graph
    graph.node[6].output[0] = "raw"
    graph.node.insert(7, helper.make_node("ReduceMean", ["raw"], ["mean"], keepdims=1))
    graph.node.insert(8, helper.make_node("Mul", ["raw", "mean"], ["logits"]))
    return model
