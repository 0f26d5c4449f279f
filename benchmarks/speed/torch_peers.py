"""PyTorch, captum and pytorch-grad-cam."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed.networks import Opened
from benchmarks.speed.table import EAGER, EAGER_HALF, EAGER_TF32
from benchmarks.speed.timing import Run


def torch_peers(
    opened: Opened, task: str, images: np.ndarray, targets: np.ndarray, threads: int, device: str
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Who takes part in a task, and what makes the function that runs it.

    On CUDA pictures and maps stay on the device, as ours do, where the peer can, and float32 is
    float32.
    """
    torch.set_num_threads(threads)
    net, x = opened.module.to(device), torch.from_numpy(images).to(device)
    wanted = [torch.full((len(x),), int(t), device=device) for t in targets]
    makers: dict[str, Callable[[], Run]] = {}
    if task in ("gradient", "five classes"):
        makers[EAGER] = lambda: lambda: [input_gradient(net, x, t) for t in wanted]
    if task == "gradient":
        makers["torch.compile"] = lambda: _compiled(net, x, wanted[0])
    makers["captum"] = lambda: _captum(opened, task, x, wanted)
    if task == "Grad-CAM":
        makers["pytorch-grad-cam"] = lambda: _grad_cam(opened, x, wanted[0])
    if device == "cpu":
        yield from makers.items()
        return
    for name, make in makers.items():
        yield name, lambda make=make: _finished(make())
        if name == EAGER:
            yield EAGER_TF32, lambda make=make: _finished(make(), tf32=True)
            yield EAGER_HALF, lambda make=make: _finished(make(), tf32=True, half=True)


def _finished(run: Run, *, tf32: bool = False, half: bool = False) -> Run:
    """`run`, until the device is done."""

    def finished() -> object:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast("cuda", torch.float16, enabled=half):
            result = run()
        torch.cuda.synchronize()
        return result

    return finished


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
