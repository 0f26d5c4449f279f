"""Maps of captum and pytorch-grad-cam, for a network in either precision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

Array = np.ndarray


def saliency(net: nn.Module, images: Array, targets: Sequence[int]) -> Array:
    """captum's Saliency without its absolute value: the gradient (N, 3, H, W)."""
    return _attribute(captum.attr.Saliency(net), net, images, targets, abs=False)


def guided_backprop(net: nn.Module, images: Array, targets: Sequence[int]) -> Array:
    return _attribute(captum.attr.GuidedBackprop(net), net, images, targets)


def deconvnet(net: nn.Module, images: Array, targets: Sequence[int]) -> Array:
    return _attribute(captum.attr.Deconvolution(net), net, images, targets)


def guided_grad_cam(
    net: nn.Module, layer: nn.Module, images: Array, targets: Sequence[int]
) -> Array:
    method = captum.attr.GuidedGradCam(net, layer)
    return _attribute(method, net, images, targets, interpolate_mode="bilinear")


def grad_cam(net: nn.Module, layer: nn.Module, images: Array, targets: Sequence[int]) -> Array:
    """pytorch-grad-cam's GradCAM (N, h, w), rectified, as it is before its min-max scaling."""

    class RawGradCAM(pytorch_grad_cam.GradCAM):
        raw: Array

        def get_cam_image(self, *args: Any, **kwargs: Any) -> Array:
            self.raw = super().get_cam_image(*args, **kwargs)
            return self.raw

    wanted = [ClassifierOutputTarget(target) for target in targets]
    with RawGradCAM(model=net.requires_grad_(True), target_layers=[layer]) as cam:
        cam(input_tensor=_tensor(net, images), targets=wanted)
    return np.maximum(cam.raw, 0)


def _attribute(
    method: Any, net: nn.Module, images: Array, targets: Sequence[int], **options: Any
) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum says that it sets hooks, every time
        found = method.attribute(_tensor(net, images), target=list(targets), **options)
    return found.detach().double().numpy()


def _tensor(net: nn.Module, images: Array) -> torch.Tensor:
    return torch.tensor(images, dtype=next(net.parameters()).dtype, requires_grad=True)
