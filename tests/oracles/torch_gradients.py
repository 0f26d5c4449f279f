"""Gradients of a PyTorch network, the state of every kink they went through, and ReLU rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Array = np.ndarray


@dataclass(frozen=True)
class Kink:
    """Where one activation or max-pool of a forward pass stood.

    Attributes:
        kind: "relu", "clip", "hard" (hard-sigmoid and hard-swish) or "max".
        state: per element, the number of the linear piece it is on; of a max-pool, the flat
            position of the maximum in the whole tensor, as ONNX counts.
    """

    kind: str
    state: Array


@dataclass(frozen=True)
class Gradients:
    """One backward pass, in float64 whatever it was computed in.

    Attributes:
        image: gradient at the images (N, 3, H, W).
        layer: gradient at the default CAM layer (N, C, h, w).
        activation: that layer's values.
        kinks: in the order of the forward pass.
        before_layer: how many of them lie before the layer; None where that is not known.
    """

    image: Array
    layer: Array
    activation: Array
    kinks: tuple[Kink, ...]
    before_layer: int | None = None


def gradients(
    net: nn.Module,
    layer: nn.Module,
    images: Array,
    ct: Array,
    rule: str = "gradient",
    replay: Sequence[Kink] | None = None,
) -> Gradients:
    """Autograd's gradients of Σ ct · net(images), in the precision of the network's weights.

    Args:
        net: in eval mode.
        layer: the module of `net` whose output is the default CAM layer.
        images: (N, 3, H, W).
        ct: (N, classes).
        rule: the ReLU rule; "gradient" leaves PyTorch's own ReLU in place.
        replay: the kinks of another pass; every element is forced onto the same linear piece.
    """
    dtype = next(net.parameters()).dtype
    x = torch.tensor(images, dtype=dtype, requires_grad=True)
    kinks = _Kinks(rule, replay)
    held: list[tuple[torch.Tensor, int]] = []
    handle = layer.register_forward_hook(lambda *call: held.append((call[2], len(kinks.seen))))
    try:
        with kinks:
            scores = net(x)
    finally:
        handle.remove()
    ((activation, before),) = held
    total = (scores * torch.tensor(ct, dtype=dtype)).sum()
    dx, dlayer = (g.double().numpy() for g in torch.autograd.grad(total, [x, activation]))
    values = activation.detach().double().numpy()
    return Gradients(dx, dlayer, values, tuple(kinks.seen), before)


@contextmanager
def relu_rule(rule: str) -> Iterator[None]:
    """Within this context every ReLU and ReLU6, functional ones included, follows `rule`."""
    with _Kinks(rule, None):
        yield


def relu_state(x: Array) -> Array:
    return (x > 0).astype(np.int8)


def clip_state(x: Array, top: float) -> Array:
    return (x > 0).astype(np.int8) + (x >= top)


def hard_state(x: Array) -> Array:
    return (x > -3).astype(np.int8) + (x >= 3)


class _Rectify(torch.autograd.Function):
    """A ReLU or ReLU6 whose backward is deconvnet's or guided backpropagation's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, passed: torch.Tensor, top: float, rule: str) -> Any:
        ctx.save_for_backward(passed)
        ctx.rule = rule
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, ct: torch.Tensor) -> Any:
        (passed,) = ctx.saved_tensors
        positive = ct.clamp(min=0)
        return (positive if ctx.rule == "deconvnet" else positive * passed), None, None, None


_KINDS = {
    "relu": "relu",
    "relu_": "relu",
    "hardtanh": "clip",
    "relu6": "clip",
    "hardswish": "hard",
    "hardsigmoid": "hard",
    "max_pool2d": "max",
}


class _Kinks(TorchFunctionMode):
    """Sees every activation at the level of torch.nn.functional, and may replace it."""

    def __init__(self, rule: str, replay: Sequence[Kink] | None) -> None:
        super().__init__()
        self.seen: list[Kink] = []
        self._rule = rule
        self._replay = None if replay is None else iter(replay)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        kind = _KINDS.get(name)
        if kind is None:
            return func(*args, **kwargs)
        x = args[0]
        if self._replay is None:
            kink = Kink(kind, _state(kind, x, args, kwargs))
        else:
            kink = next(self._replay)
            assert kink.kind == kind, f"{name} meets a recorded {kink.kind}"
        self.seen.append(kink)
        if kind in ("relu", "clip") and self._rule != "gradient":
            top = 6.0 if kind == "clip" else float("inf")
            return _Rectify.apply(x, torch.from_numpy(kink.state == 1), top, self._rule)
        if self._replay is None:
            return func(*args, **kwargs)
        return _forced(name, x, torch.from_numpy(kink.state))


def _state(kind: str, x: torch.Tensor, args: Any, kwargs: dict[str, Any]) -> Array:
    value = x.detach()
    if kind == "max":
        options = {**kwargs, "return_indices": True}
        _, place = functional.max_pool2d(value, *args[1:], **options)
        return _planes(x).numpy() + place.numpy()
    if kind == "clip":
        assert (0.0, 6.0) in (args[1:3], (kwargs.get("min_val"), kwargs.get("max_val"))), kwargs
        return clip_state(value.numpy(), 6.0)
    return (relu_state if kind == "relu" else hard_state)(value.numpy())


def _planes(x: torch.Tensor) -> torch.Tensor:
    """Flat position at which each plane of x (N, C, H, W) begins, (N, C, 1, 1)."""
    n, c, h, w = x.shape
    return (torch.arange(n * c) * (h * w)).reshape(n, c, 1, 1)


def _forced(name: str, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """The activation with every element on the linear piece that `state` says."""
    if name == "max_pool2d":
        place = (state - _planes(x)).flatten(2)
        return x.flatten(2).gather(2, place).reshape(state.shape)
    low, middle = state == 0, state == 1
    if name in ("relu", "relu_"):
        return torch.where(middle, x, 0.0)
    if name == "hardswish":
        return torch.where(low, 0.0, torch.where(middle, x * (x + 3) / 6, x))
    if name == "hardsigmoid":
        return torch.where(low, 0.0, torch.where(middle, (x + 3) / 6, 1.0))
    return torch.where(low, 0.0, torch.where(middle, x, 6.0))
