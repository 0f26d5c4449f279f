"""The straight-through gradient of the int8 MobileNetV2, written down a second time in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from tests.graph_rewrites.runtime import run
from tests.photographs import PHOTOGRAPHS, square_bytes

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = [pytest.mark.shared, pytest.mark.oracles]

DOG, CAT = 244, 283  # classes of 1001: bull mastiff, tiger cat


Grid = tuple[np.float32, int]  # scale and zero point


class FakeQuantize(torch.autograd.Function):
    """Round to steps and saturate; backwards the cotangent passes where `passes` says.

    Saturation alone stops nothing; a ReLU6 stops 0 and what has reached its bound.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, steps: Any, grid: Grid, relu6: bool) -> Any:
        scale, zero = float(grid[0]), grid[1]
        y = (torch.clamp(torch.round(steps).double(), 0, 255) - zero) * scale
        passes = (y > 0) & (y < 6 - scale / 2) if relu6 else torch.ones_like(y)
        ctx.save_for_backward(passes)
        return y

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        return ct * ctx.saved_tensors[0], None, None, None


def rescaled(x: Any, unit: np.float32, to: Grid) -> Any:
    """An accumulator that counts in `unit`, in steps of `to`: one product in float32."""
    return torch.round(torch.round(x / float(unit)).float() * float(unit / to[0])) + to[1]


def added(parts: list[tuple[Any, Grid]], to: Grid) -> Any:
    """A sum of quantised tensors in steps of `to`: fused products in float32, one by one.

    The order is that of the runtime's kernel: one tie rounded the other way is seen in every score.
    """
    total = torch.tensor(np.float32(to[1]))
    for _, (scale, zero) in parts:
        total = (total.double() - float(scale / to[0]) * zero).float()
    for x, (scale, zero) in parts:
        steps = torch.round(x / float(scale)) + zero
        total = (steps * float(scale / to[0]) + total).float()
    return total


class Network:
    """The file's own arithmetic node by node, in what the tensors stand for and not in steps."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = {node.output[0]: node for node in model.graph.node}
        weights = model.graph.initializer
        self.constants = {w.name: onnx.numpy_helper.to_array(w) for w in weights}
        self.picture = model.graph.input[0].name
        self.values: dict[str, Any] = {}

    def gradient(self, picture: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Logits (1001,), and their derivatives (len(classes), H, W, 3) per step of the bytes."""
        x = torch.tensor(picture, dtype=torch.float64, requires_grad=True)
        logits = self._logits(x)
        rows = [torch.autograd.grad(logits[c], x, retain_graph=True)[0] for c in classes]
        return logits.detach().numpy(), np.concatenate([row.numpy() for row in rows])

    def _logits(self, x: Any) -> Any:
        self.values = {self.picture: x}
        for result, node in self.nodes.items():
            operands = [self._value(name) for name in node.input]
            if node.op_type == "Softmax":
                return operands[0].flatten()
            if node.op_type == "QuantizeLinear":
                value = self._quantized(node, operands[0])
            elif node.op_type == "DequantizeLinear":
                value = self._real(node, operands[0])
            elif node.op_type == "Clip":
                assert [v.item() for v in operands[1:]] == [0.0, 6.0]
                value = operands[0]  # its QuantizeLinear does its work
            else:
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                value = OPERATORS[node.op_type](*operands, **attributes)
            self.values[result] = value
        raise AssertionError("the file has no softmax")

    def _quantized(self, node: onnx.NodeProto, x: Any) -> Any:
        to, source = self._grid(node), self.nodes[node.input[0]]
        relu6 = source.op_type == "Clip"
        source = self.nodes[source.input[0]] if relu6 else source
        behind = [self._grid(self.nodes[name]) for name in source.input[:2] if name in self.nodes]
        if source.op_type == "Conv":
            steps = rescaled(x.detach(), behind[0][0] * behind[1][0], to)
        elif source.op_type == "Add":
            parts = [self.values[name].detach() for name in source.input]
            steps = added(list(zip(parts, behind, strict=True)), to)
        else:
            steps = torch.round(x.detach() / float(to[0])) + to[1]
        return FakeQuantize.apply(x, steps, to, relu6)

    def _grid(self, node: onnx.NodeProto) -> Grid:
        scale, zero = (self.constants[name].item() for name in node.input[1:])
        return np.float32(scale), int(zero)

    def _real(self, node: onnx.NodeProto, steps: Any) -> Any:
        """Weights and the picture become real here; activations are already."""
        if node.input[0] not in self.constants and not self._is_picture(node.input[0]):
            return steps
        scale, zero = (self.constants[name].astype(np.float64) for name in node.input[1:])
        return (steps - torch.tensor(zero)) * torch.tensor(scale)

    def _is_picture(self, name: str) -> bool:
        while name in self.nodes and self.nodes[name].op_type in ("Transpose", "Reshape"):
            name = self.nodes[name].input[0]
        return name == self.picture

    def _value(self, name: str) -> Any:
        if name not in self.constants:
            return self.values[name]
        value = self.constants[name]
        return torch.tensor(value.astype(np.int64 if value.dtype == np.int64 else np.float64))


def _convolution(x: Any, w: Any, b: Any, **attributes: Any) -> Any:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    if attributes.get("auto_pad") == b"SAME_UPPER":
        wanted = [
            max((-(-size // s) - 1) * s + k - size, 0)
            for size, s, k in zip(x.shape[2:], attributes["strides"], w.shape[2:], strict=True)
        ]
        (top, left), (bottom, right) = [n // 2 for n in wanted], [n - n // 2 for n in wanted]
    x = torch.nn.functional.pad(x, (left, right, top, bottom))
    strides, group = attributes.get("strides", [1, 1]), attributes.get("group", 1)
    return torch.nn.functional.conv2d(x, w, b, strides, groups=group)


def _average(x: Any, **attributes: Any) -> Any:
    assert list(attributes["kernel_shape"]) == list(x.shape[2:])
    return x.mean((2, 3), keepdim=True)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _convolution,
    "AveragePool": _average,
    "Add": lambda a, b: a + b,
    "Transpose": lambda x, perm: x.permute(perm),
    "Reshape": lambda x, shape: x.reshape(shape.tolist()),
}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS[1::3])
def test_straight_through_gradient(photograph: str, shared: Path) -> None:
    model = onnx.load(shared / "models" / "mobilenet_v2_imagenet_qdq.onnx")
    name = model.graph.input[0].name
    picture = square_bytes(shared / "images" / photograph)
    grads = gr.differentiate(model, wrt=[name])
    ct = np.zeros((2, 1001), np.float32)
    ct[[0, 1], [DOG, CAT]] = 1
    scores = gr.scores(model).tensor
    grads.graph.output.append(onnx.helper.make_tensor_value_info(scores, 1, ["N", 1001]))
    ours = run(grads, {name: picture.repeat(2, 0), "cotangent": ct})
    logits, theirs = Network(model).gradient(picture, [DOG, CAT])
    np.testing.assert_allclose(ours[scores][0].ravel(), logits, atol=1e-4)
    for a, b in zip(ours[f"grad/{name}"], theirs, strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)
