"""The networks that are measured: the same weights as a PyTorch module and as an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        title: as the table calls it.
        member: of the conformance run.
        layer: from the module to the one behind which PyTorch's Grad-CAM looks: the default layer.
    """

    title: str
    member: str
    layer: Callable[[Any], nn.Module]

    def file(self, exports: Path) -> Path:
        """Its export in a folder of them."""
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
    )
}


@dataclass(frozen=True)
class Opened:
    """A network, ready to run: the module in eval mode, and its export."""

    network: Network
    module: nn.Module
    model: onnx.ModelProto
    image: tuple[int, ...]


def open_network(title: str, exports: Path) -> Opened:
    """Build a network with its seeded weights; its export is kept in `exports`."""
    from benchmarks.conformance.torch_reference import TorchReference

    network = NETWORKS[title]
    reference = TorchReference(network.member)
    exports.mkdir(parents=True, exist_ok=True)
    model = reference.export(network.file(exports))
    return Opened(network, reference.module, model, reference.shape)
