"""Who runs, for each task: a function without arguments for each contender."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

import graph_rewrites as gr
from benchmarks.speed.networks import Opened
from benchmarks.speed.table import APART, FORWARD, LOWERED, PORTABLE
from benchmarks.speed.timing import Run

TARGETS = 5
RULES = ("gradient", "guided_backprop", "deconvnet")
TASKS: dict[str, tuple[str, ...]] = {
    "gradient": ("gradient",),
    "guided": ("guided_backprop",),
    "three rules": RULES,
    "Grad-CAM": ("grad_cam",),
    "guided Grad-CAM": ("guided_grad_cam",),
    "five classes": ("gradient",),
}
"""The methods of each task."""


class Task:
    """One task on one network, for a batch of noise.

    Args:
        opened: the network.
        name: a name in `TASKS`.
        batch: images in a run.
        threads: of every contender.
    """

    def __init__(self, opened: Opened, name: str, batch: int, threads: int) -> None:
        self._opened, self._name, self._threads = opened, name, threads
        torch.set_num_threads(threads)
        rng = np.random.default_rng(0)
        self._images = rng.standard_normal((batch, *opened.image)).astype(np.float32)
        several = name == "five classes"
        self._targets = np.arange(TARGETS if several else 1)

    def contenders(self) -> tuple[dict[str, Run], dict[str, str]]:
        """All that can run here, and why others cannot."""
        found, absent = dict(self._ours()), {}
        for name, make in self._peers():
            try:
                run = make()
                run()
            except Exception as error:  # whatever a peer says about a network is a finding
                absent[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            else:
                found[name] = run
        return found, absent

    # -- ours ------------------------------------------------------------------------------------

    def _ours(self) -> Iterator[tuple[str, Run]]:
        canonical = gr.canonicalize(self._opened.model)
        tensor = canonical.graph.input[0].name
        images = {tensor: self._images}
        yield FORWARD, self._session(self._fixed(canonical, images, "portable"), images)
        methods, count = TASKS[self._name], len(self._targets)
        target = np.broadcast_to(self._targets, (len(self._images), count))
        feeds = {**images, "target": target if count > 1 else target[:, 0]}
        built = gr.explanation_model(canonical, methods, targets=count)
        yield PORTABLE, self._session(built, feeds)
        yield LOWERED, self._session(self._fixed(built, feeds, "cpu"), feeds)
        if count > 1 or len(methods) > 1:
            yield APART, self._apart(canonical, methods, images)

    def _apart(
        self, canonical: onnx.ModelProto, methods: Sequence[str], images: dict[str, np.ndarray]
    ) -> Run:
        runs = []
        for method in methods:
            feeds = {**images, "target": np.zeros(len(self._images), np.int64)}
            built = gr.explanation_model(canonical, method)
            runs.append(self._session(self._fixed(built, feeds, "cpu"), feeds))
        return lambda: [run() for run in runs for _ in self._targets]

    def _fixed(
        self, model: onnx.ModelProto, feeds: dict[str, np.ndarray], provider: str
    ) -> onnx.ModelProto:
        return gr.lower(model, provider, {name: value.shape for name, value in feeds.items()})

    def _session(self, model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> Run:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        # Between runs only: else idle sessions take the cores from the next contender.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        opened = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda: opened.run(None, feeds)

    # -- the peers -------------------------------------------------------------------------------

    def _peers(self) -> Iterator[tuple[str, Callable[[], Run]]]:
        net, x = self._opened.module, torch.from_numpy(self._images)
        targets = [torch.full((len(x),), int(t)) for t in self._targets]
        if self._name in ("gradient", "five classes"):
            yield "PyTorch eager", lambda: lambda: [input_gradient(net, x, t) for t in targets]
        if self._name == "gradient":
            yield "torch.compile", lambda: _compiled(net, x, targets[0])
        yield "captum", lambda: self._captum(x, targets)
        if self._name == "Grad-CAM":
            yield "pytorch-grad-cam", lambda: self._grad_cam(x, targets[0])

    def _captum(self, x: torch.Tensor, targets: list[torch.Tensor]) -> Run:
        from captum import attr

        net = copy.deepcopy(self._opened.module)  # its hooks would stay
        layer = self._opened.network.layer(net)
        if self._name in ("gradient", "five classes"):
            saliency = attr.Saliency(net)
            return lambda: [saliency.attribute(x, t, abs=False) for t in targets]
        if self._name == "Grad-CAM":
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
        methods = [make(net) for make in makers[self._name]]
        return lambda: [method.attribute(x, targets[0]) for method in methods]

    def _grad_cam(self, x: torch.Tensor, target: torch.Tensor) -> Run:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        def grid(tokens: torch.Tensor) -> torch.Tensor:
            side = round((tokens.shape[1] - 1) ** 0.5)
            return tokens[:, 1:].reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)

        net = copy.deepcopy(self._opened.module).requires_grad_()
        tokens = self._opened.network.title.startswith("ViT")
        layers = [self._opened.network.layer(net)]
        cam = GradCAM(net, layers, reshape_transform=grid if tokens else None)
        wanted = [ClassifierOutputTarget(int(t)) for t in target]
        return lambda: cam(x, wanted)


def input_gradient(net: Callable[..., Any], x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """PyTorch's own: forward, and the gradient of one score for each image."""
    x = x.detach().requires_grad_()
    scores = net(x).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, x)
    return gradient


def _compiled(net: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Run:
    compiled = torch.compile(net)
    return lambda: input_gradient(compiled, x, target)
