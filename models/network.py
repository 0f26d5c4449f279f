"""The demo network in PyTorch, and its ONNX file.

A plain chain of convolutions, each with BatchNormalization and ReLU, then a global average pool and
one dense layer: a score is a mean over the last 12 x 12 grid, to which each place adds its vote.

The dense layer's weights are a fixed code of +1 and -1, rows of a Hadamard matrix (an
error-correcting output code, Dietterich & Bakiri 1995). So any two classes share half of the
channels that speak for them, as the classes of a large network do. Guided backpropagation, which
follows positive weights only, then lights up other objects too; Grad-CAM tells them apart.

BatchNormalization is folded into the convolutions for the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET, IR_VERSION = 18, 8


@dataclass(frozen=True)
class Stage:
    """One convolution with ReLU: `pool` halves the grid before it, `stride` within it."""

    name: str
    channels: int
    kernel: int = 3
    stride: int = 1
    pool: bool = False


STAGES = (
    Stage("stem", 16, kernel=5, stride=2),
    Stage("block1", 24),
    Stage("block2.0", 32, pool=True),
    Stage("block2.1", 48),
    Stage("block3.0", 64, pool=True),
    Stage("block3.1", 64),
    Stage("block3.2", 16),
)


def hadamard(order: int) -> Tensor:
    """Sylvester's Hadamard matrix, (order, order): orthogonal rows of +1 and -1.

    Raises:
        ValueError: `order` is no power of two.
    """
    if order < 1 or order & (order - 1):
        raise ValueError(f"order={order}: Sylvester's construction needs a power of two")
    matrix = torch.ones(1, 1)
    while len(matrix) < order:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


class ShapeNet(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> scores (N, classes): one independent logit per class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        channels = 3
        for stage in STAGES:
            padding = stage.kernel // 2
            self.convolutions.append(
                nn.Conv2d(channels, stage.channels, stage.kernel, stage.stride, padding, bias=False)
            )
            self.norms.append(nn.BatchNorm2d(stage.channels))
            channels = stage.channels
        self.classifier = nn.Linear(channels, classes)
        # Row 0 is all +1: it would set no class apart.
        code = hadamard(channels)[1 : classes + 1]
        self.classifier.weight = nn.Parameter(code, requires_grad=False)

    def features(self, image: Tensor, relu: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
        """The last feature map, (N, C, H/8, W/8); `relu` stands in for every ReLU."""
        x = image
        for stage, convolution, norm in zip(STAGES, self.convolutions, self.norms, strict=True):
            if stage.pool:
                x = nn.functional.max_pool2d(x, 2)
            x = relu(norm(convolution(x)))
        return x

    def scores(self, features: Tensor) -> Tensor:
        """The scores, (N, classes), of a last feature map; before any sigmoid."""
        scores: Tensor = self.classifier(features.mean((2, 3)))
        return scores

    def votes(self, features: Tensor) -> Tensor:
        """What each place of a last feature map adds to the scores, (N, classes, h, w)."""
        return torch.einsum("nchw,kc->nkhw", features, self.classifier.weight)

    def forward(self, image: Tensor) -> Tensor:
        """The scores of pictures."""
        return self.scores(self.features(image))

    def folded(self) -> Iterator[tuple[Stage, nn.Conv2d]]:
        """Each stage with its convolution, BatchNormalization folded in."""
        self.eval()
        for stage, convolution, norm in zip(STAGES, self.convolutions, self.norms, strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            yield stage, fuse_conv_bn_eval(convolution, norm)


class _Graph:
    """Nodes and weights in the making."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(
        self,
        op_type: str,
        stem: str,
        inputs: list[str],
        output: str,
        **attributes: Any,  # noqa: ANN401 - as onnx.helper types it
    ) -> str:
        """Append a node named "<stem>/<op_type>"; return its output."""
        name = f"{stem}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def parameters(self, stem: str, layer: nn.Conv2d | nn.Linear) -> list[str]:
        """Store a layer's weight and bias; return their names."""
        assert layer.bias is not None
        for name, values in (("weight", layer.weight), ("bias", layer.bias)):
            array = values.detach().numpy()
            self.weights.append(numpy_helper.from_array(array, f"{stem}.{name}"))
        return [f"{stem}.weight", f"{stem}.bias"]


def onnx_model(network: ShapeNet, size: int, notes: Mapping[str, str]) -> onnx.ModelProto:
    """Write the network, as it infers, as ONNX.

    Args:
        network: as trained; it is put into evaluation mode.
        size: height and width of the input in pixels.
        notes: metadata properties of the file.

    Returns:
        A checked model `image` float32 (N, 3, size, size) in [0, 1] -> `scores` float32
        (N, classes), N free, in plain `ai.onnx` operators.
    """
    graph, x = _Graph(), "image"
    for stage, convolution in network.folded():
        name = stage.name
        if stage.pool:
            halve = {"kernel_shape": [2, 2], "strides": [2, 2]}
            x = graph.add("MaxPool", name, [x], f"{name}.pool", **halve)
        x = graph.add(
            "Conv",
            name,
            [x, *graph.parameters(name, convolution)],
            f"{name}.conv",
            kernel_shape=[stage.kernel] * 2,
            strides=[stage.stride] * 2,
            pads=[stage.kernel // 2] * 4,
        )
        x = graph.add("Relu", name, [x], f"{name}.relu")
    x = graph.add("GlobalAveragePool", "head", [x], "head.pool")
    x = graph.add("Flatten", "head", [x], "head.features")
    dense = network.classifier
    graph.add("Gemm", "head", [x, *graph.parameters("head", dense)], "scores", transB=1)
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "shapes",
            [value("image", TensorProto.FLOAT, ["batch", 3, size, size])],
            [value("scores", TensorProto.FLOAT, ["batch", dense.out_features])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnx-analyzer",
    )
    helper.set_model_props(model, dict(notes))
    onnx.checker.check_model(model, full_check=True)
    return model


def load_onnx(model: onnx.ModelProto) -> ShapeNet:
    """The network of a file that `onnx_model` wrote, in evaluation mode.

    BatchNormalization does not come back: its fold stays in the convolutions.
    """
    weights = {
        tensor.name: nn.Parameter(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        for tensor in model.graph.initializer
    }
    network = ShapeNet(len(weights["head.bias"]))
    network.norms = nn.ModuleList(nn.Identity() for _ in STAGES)
    for stage, convolution in zip(STAGES, network.convolutions, strict=True):
        convolution.weight = weights[f"{stage.name}.weight"]
        convolution.bias = weights[f"{stage.name}.bias"]
    network.classifier.weight, network.classifier.bias = (
        weights["head.weight"],
        weights["head.bias"],
    )
    return network.eval()
