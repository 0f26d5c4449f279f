"""Small transformers, written as exporters write large ones, for pictures of 12 × 8 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GRID, WIDTH, HEADS, CLASSES = (3, 2), 8, 2, 5
TOKENS = GRID[0] * GRID[1]


class Net:
    """A model under construction, node by node; arrays among the inputs become initializers."""

    def __init__(self, shape: tuple[int, ...] = (3, 12, 8)) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def draw(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

    def op(self, op_type: str, *inputs: object, to: str = "", **attributes: Any) -> str:
        names = [name if isinstance(name, str) else self._weight(name) for name in inputs]
        to = to or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, names, [to], **attributes))
        return to

    def model(self) -> onnx.ModelProto:
        """The model with the input `x` and the output `y`."""
        graph = helper.make_graph(
            self.nodes,
            "transformer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", *self.shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", CLASSES))],
            self.weights,
        )
        opset = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _weight(self, value: object) -> str:
        array = np.asarray(value)
        array = array.astype(np.int64) if array.dtype.kind == "i" else array.astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name


def patches(net: Net) -> str:
    """(N, 6, 8): the patches that a convolution embeds."""
    c = net.op("Conv", "x", net.draw(WIDTH, 3, 4, 4), kernel_shape=[4, 4], strides=[4, 4])
    return net.op("Transpose", net.op("Reshape", c, [0, WIDTH, -1]), perm=[0, 2, 1])


def with_leading(net: Net, tokens: str, count: int) -> str:
    """(N, count + 6, 8): learned tokens in front, then the position embedding."""
    batch = net.op("Shape", tokens, start=0, end=1)
    size = net.op("Concat", batch, [count, WIDTH], axis=0)
    lead = net.op("Expand", net.draw(1, count, WIDTH), size)
    joined = net.op("Concat", lead, tokens, axis=1)
    return net.op("Add", joined, net.draw(1, count + TOKENS, WIDTH))


def norm(net: Net, x: str, to: str = "") -> str:
    return net.op("LayerNormalization", x, 1 + net.draw(WIDTH), net.draw(WIDTH), to=to)


def dense(net: Net, x: str, size: int = WIDTH, to: str = "") -> str:
    return net.op("Add", net.op("MatMul", x, net.draw(WIDTH, size)), net.draw(size), to=to)


def heads(net: Net, x: str, perm: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    """(N, heads, L, d) of (N, L, heads · d), or another order of these axes."""
    return net.op("Transpose", net.op("Reshape", x, [0, -1, HEADS, WIDTH // HEADS]), perm=perm)


def attend(net: Net, x: str, queries: str = "") -> str:
    """Multi-head attention over the tokens `x`; `queries` are others than themselves."""
    q, k, v = (dense(net, source) for source in (queries or x, x, x))
    logits = net.op("MatMul", heads(net, q), heads(net, k, (0, 2, 3, 1)))
    weights = net.op("Softmax", net.op("Mul", logits, np.float32(0.5)))
    mixed = net.op("Transpose", net.op("MatMul", weights, heads(net, v)), perm=[0, 2, 1, 3])
    return dense(net, net.op("Reshape", mixed, [0, -1, WIDTH]))


def block(net: Net, x: str, name: str, mix: Callable[[Net, str], str] = attend) -> str:
    """x + mix(norm(x)), then the same with a two-layer perceptron."""
    x = net.op("Add", x, mix(net, norm(net, x, f"{name}.norm1")), to=f"{name}.mixed")
    hidden = net.op("Gelu", dense(net, norm(net, x, f"{name}.norm2")))
    return net.op("Add", x, dense(net, hidden), to=f"{name}.out")


def classify(net: Net, pooled: str) -> onnx.ModelProto:
    dense(net, pooled, CLASSES, to="y")
    return net.model()


def class_token(count: int = 1) -> onnx.ModelProto:
    """ViT, DeiT, DINOv2: the class token is read; `count` tokens lead."""
    net = Net()
    x = with_leading(net, patches(net), count)
    for name in ("b0", "b1"):
        x = block(net, x, name)
    return classify(net, net.op("Gather", norm(net, x, "norm"), np.int64(0), axis=1))


def older_exporter() -> onnx.ModelProto:
    """ViT from PyTorch's older exporter: `flatten(2)`, and `expand(n, -1, -1)` as a choice."""
    net = Net()
    c = net.op("Conv", "x", net.draw(WIDTH, 3, 4, 4), kernel_shape=[4, 4], strides=[4, 4])
    front = net.op("Slice", net.op("Shape", c), [0], [2], [0])
    flat = net.op("Reshape", c, net.op("Concat", front, [-1], axis=0))
    tokens = net.op("Transpose", flat, perm=[0, 2, 1])
    count = net.op("Unsqueeze", net.op("Gather", net.op("Shape", tokens), np.int64(0)), [0])
    asked = net.op("Reshape", net.op("Concat", count, [-1], [-1], axis=0), [-1])
    size = net.op("Where", net.op("Equal", asked, [-1, -1, -1]), [1, 1, 1], asked)
    lead = net.op("Expand", net.draw(1, 1, WIDTH), size)
    x = net.op("Concat", lead, tokens, axis=1)
    x = block(net, net.op("Add", x, net.draw(1, 1 + TOKENS, WIDTH)), "b0")
    return classify(net, net.op("Gather", norm(net, x, "norm"), np.int64(0), axis=1))


def average() -> onnx.ModelProto:
    """The class token is dropped, the patches are averaged."""
    net = Net()
    x = block(net, with_leading(net, patches(net), 1), "b0")
    x = net.op("Slice", norm(net, x, "norm"), [1], [np.iinfo(np.int64).max], [1])
    return classify(net, net.op("ReduceMean", x, [1], keepdims=0))


def class_attention() -> onnx.ModelProto:
    """CaiT, XCiT: the class token comes late and only asks."""
    net = Net()
    x = with_leading(net, block(net, patches(net), "b0"), 1)

    def ask(net: Net, x: str) -> str:
        return attend(net, x, net.op("Slice", x, [0], [1], [1]))

    token = net.op("Slice", x, [0], [1], [1])
    token = net.op("Add", token, ask(net, norm(net, x, "ask.norm1")))
    return classify(net, net.op("Squeeze", norm(net, token), [1]))


def attention_pool() -> onnx.ModelProto:
    """SigLIP: a learned query asks all patches."""
    net = Net()
    x = norm(net, block(net, patches(net), "b0"), "norm")
    k, v = heads(net, dense(net, x), (0, 2, 3, 1)), heads(net, dense(net, x))
    query = net.draw(1, HEADS, 1, WIDTH // HEADS)
    mixed = net.op("MatMul", net.op("Softmax", net.op("MatMul", query, k)), v)
    return classify(net, dense(net, net.op("Reshape", mixed, [0, WIDTH])))


def mixer() -> onnx.ModelProto:
    """MLP-Mixer: a dense layer works along the tokens."""

    def mix(net: Net, x: str) -> str:
        turned = net.op("Transpose", x, perm=[0, 2, 1])
        hidden = net.op("Gelu", net.op("MatMul", turned, net.draw(TOKENS, 10)))
        return net.op("Transpose", net.op("MatMul", hidden, net.draw(10, TOKENS)), perm=[0, 2, 1])

    net = Net()
    x = norm(net, block(net, patches(net), "b0", mix), "norm")
    return classify(net, net.op("ReduceMean", x, [1], keepdims=0))


def cut_by_reshape() -> onnx.ModelProto:
    """NaFlex: patches are cut by a Reshape and embedded by a dense layer."""
    net = Net()
    cells = net.op("Reshape", "x", [-1, 3, 3, 4, 2, 4])
    flat = net.op("Reshape", net.op("Transpose", cells, perm=[0, 2, 4, 3, 5, 1]), [-1, TOKENS, 48])
    x = block(net, net.op("MatMul", flat, net.draw(48, WIDTH), to="embedded"), "b0")
    return classify(net, net.op("ReduceMean", x, [1], keepdims=0))


def windows() -> onnx.ModelProto:
    """Swin: channels last, attention inside shifted windows, patches merged on the way."""

    def inside(net: Net, x: str) -> str:
        rolled = net.op(
            "Concat", net.op("Slice", x, [1], [6], [1]), net.op("Slice", x, [0], [1], [1]), axis=1
        )
        split = net.op("Reshape", rolled, [-1, 3, 2, 2, 2, WIDTH])
        cells = net.op("Transpose", split, perm=[0, 1, 3, 2, 4, 5])
        mixed = attend(net, net.op("Reshape", cells, [-1, 4, WIDTH], to="cells"))
        back = net.op("Reshape", mixed, [-1, 3, 2, 2, 2, WIDTH])
        back = net.op("Transpose", back, perm=[0, 1, 3, 2, 4, 5])
        return net.op("Reshape", back, [-1, 6, 4, WIDTH], to="whole")

    net = Net()
    c = net.op("Conv", "x", net.draw(WIDTH, 3, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    x = block(net, net.op("Transpose", c, perm=[0, 2, 3, 1]), "b0", inside)
    quarters = net.op("Reshape", x, [-1, 3, 2, 2, 2, WIDTH])
    quarters = net.op("Transpose", quarters, perm=[0, 1, 3, 4, 2, 5])
    merged = net.op("Reshape", quarters, [-1, *GRID, 4 * WIDTH], to="merged")
    x = norm(net, net.op("MatMul", merged, net.draw(4 * WIDTH, WIDTH)), "norm")
    return classify(net, net.op("ReduceMean", x, [1, 2], keepdims=0))
