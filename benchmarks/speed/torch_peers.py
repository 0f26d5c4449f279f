"""PyTorch, captum and pytorch-grad-cam."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed.networks import Opened
from benchmarks.speed.timing import Run


def torch_peers(
    opened: Opened, task: str, images: np.ndarray, targets: np.ndarray, threads: int
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Who takes part in a task, and what makes the function that runs it."""
    torch.set_num_threads(threads)
    net, x = opened.module, torch.from_numpy(images)
    wanted = [torch.full((len(x),), int(t)) for t in targets]
    if task in ("gradient", "five classes"):
        yield "PyTorch eager", lambda: lambda: [input_gradient(net, x, t) for t in wanted]
    if task == "gradient":
        yield "torch.compile", lambda: _compiled(net, x, wanted[0])
    yield "captum", lambda: _captum(opened, task, x, wanted)
    if task == "Grad-CAM":
        yield "pytorch-grad-cam", lambda: _grad_cam(opened, x, wanted[0])


def input_gradient(net: Callable[..., Any], x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """PyTorch's own: forward, and the gradient of one score for each image."""
    x = x.detach().requires_grad_()
    scores = net(x).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, x)
    return gradient


def _compiled(net: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Run:
    compiled = torch.compile(net)
    return lambda: input_gradient(compiled, x, target)


def _captum(opened: Opened, task: str, x: torch.Tensor, targets: list[torch.Tensor]) -> Run:
    from captum import attr

    net = copy.deepcopy(opened.module)  # its hooks would stay
    layer = opened.network.layer(net)
    if task in ("gradient", "five classes"):
        saliency = attr.Saliency(net)
        return lambda: [saliency.attribute(x, t, abs=False) for t in targets]
    if task == "Grad-CAM":
        cam, size = attr.LayerGradCam(net, layer), tuple(x.shape[2:])
        return lambda: attr.LayerAttribution.interpolate(
            cam.attribute(x, targets[0], relu_attributions=True), size, "bilinear"
        )
    if not any(isinstance(module, nn.ReLU) for module in net.modules()):
        raise ValueError("its hooks look for ReLU modules, and there is none")
    makers = {
        "guided": [attr.GuidedBackprop],
        "three rules": [attr.Saliency, attr.GuidedBackprop, attr.Deconvolution],
        "guided Grad-CAM": [lambda net: attr.GuidedGradCam(net, layer)],
    }
    methods = [make(net) for make in makers[task]]
    return lambda: [method.attribute(x, targets[0]) for method in methods]


def _grad_cam(opened: Opened, x: torch.Tensor, target: torch.Tensor) -> Run:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def grid(tokens: torch.Tensor) -> torch.Tensor:
        side = round((tokens.shape[1] - 1) ** 0.5)
        return tokens[:, 1:].reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)

    net = copy.deepcopy(opened.module).requires_grad_()
    tokens = opened.network.title.startswith("ViT")
    layers = [opened.network.layer(net)]
    cam = GradCAM(net, layers, reshape_transform=grid if tokens else None)
    wanted = [ClassifierOutputTarget(int(t)) for t in target]
    return lambda: cam(x, wanted)
