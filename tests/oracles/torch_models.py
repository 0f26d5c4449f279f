"""The smallest member of each torchvision classification family, with random but sane weights."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tests.oracles.torchvision_door import import_torchvision
from tests.oracles.weights import seeded

_tv = import_torchvision().models


class FlatDenseNet(nn.Module):
    """DenseNet with its last, functional, in-place ReLU as a module that can be hooked."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = source.features, source.classifier
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d((1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images x (N, 3, H, W)."""
        return self.classifier(torch.flatten(self.pool(self.relu(self.features(x))), 1))


@dataclass(frozen=True)
class Family:
    """One torchvision family.

    Attributes:
        build: makes the network, in float32.
        layer: the module whose output is the family's default CAM layer.
        size: native height and width.
        small: the smallest height and width, at least 64, that the network takes and that leave
            the default layer more than one position.
        resizes: whether its graph holds no size, so that one export serves all sizes.
        hooked: an equal network in which `layer` is a module; the identity for most.
    """

    build: Callable[[], nn.Module]
    layer: Callable[[nn.Module], nn.Module]
    size: int = 224
    small: int = 64
    resizes: bool = True
    hooked: Callable[[nn.Module], nn.Module] = lambda net: net


NETWORKS: dict[str, Family] = {
    "alexnet": Family(_tv.alexnet, lambda net: net.features[11], small=224),
    "vgg11": Family(_tv.vgg11, lambda net: net.features[19], small=224),
    "resnet18": Family(_tv.resnet18, lambda net: net.layer4),
    "resnext50_32x4d": Family(_tv.resnext50_32x4d, lambda net: net.layer4),
    "wide_resnet50_2": Family(_tv.wide_resnet50_2, lambda net: net.layer4),
    "squeezenet1_0": Family(_tv.squeezenet1_0, lambda net: net.features),
    "squeezenet1_1": Family(_tv.squeezenet1_1, lambda net: net.features),
    "densenet121": Family(_tv.densenet121, lambda net: net.relu, hooked=FlatDenseNet),
    "googlenet": Family(
        lambda: _tv.googlenet(aux_logits=False, init_weights=True), lambda net: net.inception5b
    ),
    "googlenet_transform": Family(
        lambda: _tv.googlenet(aux_logits=False, init_weights=True, transform_input=True),
        lambda net: net.inception5b,
    ),
    "inception_v3": Family(
        lambda: _tv.inception_v3(aux_logits=False, init_weights=True),
        lambda net: net.Mixed_7c,
        size=299,
        small=107,
    ),
    "shufflenet_v2_x0_5": Family(_tv.shufflenet_v2_x0_5, lambda net: net.conv5, resizes=False),
    "mobilenet_v2": Family(_tv.mobilenet_v2, lambda net: net.features),
    "mobilenet_v3_small": Family(_tv.mobilenet_v3_small, lambda net: net.features),
    "mnasnet0_5": Family(_tv.mnasnet0_5, lambda net: net.layers),
    "efficientnet_b0": Family(_tv.efficientnet_b0, lambda net: net.features),
    "regnet_y_400mf": Family(_tv.regnet_y_400mf, lambda net: net.trunk_output),
    "convnext_tiny": Family(_tv.convnext_tiny, lambda net: net.features),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The network of family `name`, float32, in eval mode, no ReLU in place.

    Args:
        name: a key of NETWORKS.
        seed: of the weights and of everything drawn here; the global generator is restored.
    """
    return copy.deepcopy(_built(name, seed))  # tests hook theirs and change its type


@functools.cache
def _built(name: str, seed: int) -> nn.Module:
    size = NETWORKS[name].size
    return seeded(NETWORKS[name].build, (3, size, size), seed)
