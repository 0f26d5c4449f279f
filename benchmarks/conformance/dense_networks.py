"""torchvision's segmentation and detection networks, up to the scores that can be explained.

A segmentation network ends in one score per class and pixel. A detector is cut where its boxes are
still one row of scores per anchor: behind that lie non-maximum suppression and RoIAlign, operators
of torchvision's compiled part, which an export needs and a CPU build of PyTorch does not find.
What is left out has no gradient (the choice of boxes) or, in Faster R-CNN, is the second stage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import nn

from tests.oracles.torchvision_door import import_torchvision
from tests.oracles.weights import seeded

SIZE = 128
"""Height and width: these networks are convolutional and take any; small ones are quick."""


class _Segmentation(nn.Module):
    """(N, C, H, W) -> the main head's scores (N, classes, H, W)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(images)["out"]
        return scores


class _OneStage(nn.Module):
    """(N, C, H, W) -> the scores of every anchor (N, anchors, classes)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = net.backbone, net.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = list(self.backbone(images).values())
        scores: torch.Tensor = self.head(features)["cls_logits"]
        return scores


class _Proposals(nn.Module):
    """(N, C, H, W) -> the objectness of every anchor (N, anchors, 1)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = net.backbone, net.rpn.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels, _ = self.head(list(self.backbone(images).values()))
        rows = [level.permute(0, 2, 3, 1).flatten(1) for level in levels]
        return torch.cat(rows, dim=1).unsqueeze(-1)


_WRAPPERS: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "fcn_resnet50": _Segmentation,
    "fcn_resnet101": _Segmentation,
    "deeplabv3_resnet50": _Segmentation,
    "deeplabv3_resnet101": _Segmentation,
    "deeplabv3_mobilenet_v3_large": _Segmentation,
    "lraspp_mobilenet_v3_large": _Segmentation,
    "ssd300_vgg16": _OneStage,
    "ssdlite320_mobilenet_v3_large": _OneStage,
    "retinanet_resnet50_fpn": _OneStage,
    "retinanet_resnet50_fpn_v2": _OneStage,
    "fcos_resnet50_fpn": _OneStage,
    "fasterrcnn_resnet50_fpn": _Proposals,
    "fasterrcnn_resnet50_fpn_v2": _Proposals,
    "fasterrcnn_mobilenet_v3_large_fpn": _Proposals,
    "fasterrcnn_mobilenet_v3_large_320_fpn": _Proposals,
    "maskrcnn_resnet50_fpn": _Proposals,
    "maskrcnn_resnet50_fpn_v2": _Proposals,
    "keypointrcnn_resnet50_fpn": _Proposals,
}
_SIZES = {
    "ssd300_vgg16": 300,
    "ssdlite320_mobilenet_v3_large": 320,
    "retinanet_resnet50_fpn_v2": 64,  # so dense in kinks that on 128 every step crosses some
}
NAMES = tuple(_WRAPPERS)
"""Every segmentation and detection network of torchvision."""


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network with its seeded weights, cut where its scores are, and the shape of one image.

    Args:
        name: one of `NAMES`, as torchvision calls it.

    Raises:
        KeyError: there is none of that name.
    """
    wrap, models = _WRAPPERS[name], import_torchvision().models
    size = _SIZES.get(name, SIZE)
    shape = (3, size, size)
    make = functools.partial(models.get_model, name, weights=None, weights_backbone=None)
    return seeded(lambda: wrap(make()), shape), shape
