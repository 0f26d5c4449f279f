"""The networks that are measured: the same weights in their framework and as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        title: as the table calls it.
        member: of the conformance run; or a file without a framework behind it, "assets/<name>" of
            the shared assets, "light/<name>" of those that the onnx package brings along.
        layer: from a PyTorch module to the one behind which Grad-CAM looks: the default layer.
    """

    title: str
    member: str
    layer: Callable[[Any], nn.Module] = lambda net: net

    @property
    def zoo(self) -> str:
        """Where it comes from: "torchvision", "timm", "keras", "assets" or "light"."""
        return self.member.partition("/")[0]

    def file(self, exports: Path) -> Path:
        """Its export in a folder of them."""
        zoo, _, name = self.member.partition("/")
        if zoo == "assets":
            return Path(os.environ["ONNX_ANALYZER_SHARED"]) / "models" / f"{name}.onnx"
        if zoo == "light":
            return Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"
        return exports / f"{self.member.replace('/', '__')}.onnx"


NETWORKS = {
    network.title: network
    for network in (
        Network("ResNet-50", "torchvision/resnet50", lambda net: net.layer4[-1]),
        Network("VGG-16", "torchvision/vgg16", lambda net: net.features[29]),
        Network("DenseNet-121", "torchvision/densenet121", lambda net: net.features),
        Network("MobileNetV2", "torchvision/mobilenet_v2", lambda net: net.features[-1]),
        Network("EfficientNet-B0", "torchvision/efficientnet_b0", lambda net: net.features[-1]),
        Network("ConvNeXt-T", "torchvision/convnext_tiny", lambda net: net.features[-1]),
        Network("ViT-S", "timm/vit_small_patch16_224", lambda net: net.blocks[-1].norm1),
        Network("MobileNetV2, 8 bits", "assets/mobilenet_v2_imagenet_qdq"),
        Network("MobileNetV2, Keras", "keras/MobileNetV2"),
    )
}


@dataclass(frozen=True)
class Opened:
    """A network, ready to run: the framework's own, if any, and its export."""

    network: Network
    module: Any
    file: Path
    model: onnx.ModelProto

    def noise(self, batch: int) -> np.ndarray:
        """Pictures, in the type and the layout of the network's input."""
        given = self.model.graph.input[0].type.tensor_type
        shape = (batch, *(dim.dim_value for dim in given.shape.dim[1:]))
        rng = np.random.default_rng(0)
        if given.elem_type == onnx.TensorProto.UINT8:
            return rng.integers(0, 256, shape, np.uint8)
        return rng.standard_normal(shape).astype(np.float32)


def open_network(network: Network, exports: Path) -> Opened:
    """Build a network with its seeded weights; its export is kept in `exports`."""
    file = network.file(exports)
    if network.zoo in ("assets", "light"):
        return Opened(network, None, file, onnx.load(file))
    if network.zoo == "keras":
        from benchmarks.conformance.keras_reference import KerasReference as Reference
    else:
        from benchmarks.conformance.torch_reference import TorchReference as Reference
    exports.mkdir(parents=True, exist_ok=True)
    reference = Reference(network.member)
    reference.export(file)
    return Opened(network, reference.module, file, onnx.load(file))
