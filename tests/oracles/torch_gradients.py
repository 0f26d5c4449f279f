"""Gradients of a PyTorch network, the state of every kink they went through, and ReLU rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tests.oracles.passes import NOTHING, Array, Gradients, Kink, clip_state, hard_state, relu_state

Layer = nn.Module | int


def gradients(
    net: nn.Module,
    layer: Layer | None,
    images: Array,
    ct: Array,
    rule: str = "gradient",
    replay: Sequence[Kink] | None = None,
    first: int = 0,
) -> Gradients:
    """Autograd's gradients of Σ ct · net(images), in the precision of the network's weights.

    Args:
        net: in eval mode.
        layer: the module of `net` whose output is the default CAM layer, or the number of the
            call that computes it (see `call_computing`); None for the images alone.
        images: (N, 3, H, W).
        ct: (N, classes).
        rule: the ReLU rule; "gradient" leaves PyTorch's own ReLU in place.
        replay: the kinks of another pass; every element is forced onto the same linear piece.
        first: the number of the first image, where a batch is passed in parts.
    """
    dtype = next(net.parameters()).dtype
    x = torch.tensor(images, dtype=dtype, requires_grad=True)
    kinks = _Kinks(rule, replay, first)
    with kinks, _held(layer, kinks) as held:
        scores = net(x)
    total = (scores * torch.tensor(ct, dtype=dtype)).sum()
    if layer is None:
        (dx,) = torch.autograd.grad(total, [x])
        return Gradients(dx.double().numpy(), NOTHING, NOTHING, tuple(kinks.seen))
    ((activation, before),) = held
    dx, dlayer = (g.double().numpy() for g in torch.autograd.grad(total, [x, activation]))
    values = activation.detach().double().numpy()
    return Gradients(dx, dlayer, values, tuple(kinks.seen), before)


def call_computing(net: nn.Module, images: Array, values: Array) -> tuple[int, float] | None:
    """The functional call in a forward pass of `net` whose result is nearest to `values`.

    Args:
        net: in eval mode.
        images: (N, 3, H, W).
        values: of any shape; a call whose result has another shape is left out.

    Returns:
        The number of the call and its ‖Δ‖/‖values‖; None where no result has this shape. Of equally
        near ones it is an activation, since what it rectifies may be nowhere negative, or else the
        first.
    """
    calls = _Calls(torch.from_numpy(values))
    x = torch.tensor(images, dtype=next(net.parameters()).dtype)
    with torch.no_grad(), calls:
        net(x)
    if not calls.apart:
        return None
    nearest = min(calls.apart.values())
    near = [call for call, apart in calls.apart.items() if apart <= nearest * (1 + 1e-9)]
    call = next((call for call in near if call in calls.activations), near[0])
    return call, nearest


@contextmanager
def _held(layer: Layer | None, kinks: _Kinks) -> Iterator[list[tuple[torch.Tensor, int]]]:
    """What a layer computes, with the count of kinks before it, in a list that a pass fills."""
    if not isinstance(layer, nn.Module):
        kinks.hold = layer
        yield kinks.held
        return
    note = kinks.note
    handle = layer.register_forward_hook(lambda module, inputs, output: note(output))
    try:
        yield kinks.held
    finally:
        handle.remove()


@contextmanager
def relu_rule(rule: str) -> Iterator[None]:
    """Within this context every ReLU and ReLU6, functional ones included, follows `rule`."""
    with _Kinks(rule, None):
        yield


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
    "leaky_relu": "leaky",
    "leaky_relu_": "leaky",
    "prelu": "leaky",
    "max_pool2d": "max",
    "adaptive_max_pool2d": "max",
    "adaptive_max_pool2d_with_indices": "max",
}


class _Kinks(TorchFunctionMode):
    """Sees every activation at the level of torch.nn.functional, and may replace it."""

    def __init__(self, rule: str, replay: Sequence[Kink] | None, first: int = 0) -> None:
        super().__init__()
        self.seen: list[Kink] = []
        self.hold: int | None = None
        self.held: list[tuple[torch.Tensor, int]] = []
        self._calls = 0
        self._rectified: list[tuple[torch.Tensor, int, float, torch.Tensor]] = []
        self._rule, self._first = rule, first
        self._replay = None if replay is None else iter(replay)

    def note(self, tensor: torch.Tensor) -> None:
        """Keep a tensor, and how many kinks lie before it."""
        self.held.append((tensor, len(self.seen)))

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = self._call(func, args, kwargs or {})
        if self._calls == self.hold:
            self.note(result)
        self._calls += 1
        return result

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        kind = _KINDS.get(name)
        if kind is None:
            return func(*args, **kwargs)
        x = args[0]
        if self._replay is None:
            kink = Kink(kind, _state(name, kind, x, args, kwargs, self._first))
        else:
            kink = next(self._replay)
            assert kink.kind == kind, f"{name} meets a recorded {kink.kind}"
        self.seen.append(kink)
        if kind in ("relu", "clip") and self._rule != "gradient":
            top = 6.0 if kind == "clip" else float("inf")
            return self._rectify(x, torch.from_numpy(kink.state == 1), top)
        if self._replay is None:
            return func(*args, **kwargs)
        if kind == "leaky":
            slanted = func(x, *args[1:], **kwargs) - func(-x, *args[1:], **kwargs) - x
            return torch.where(torch.from_numpy(kink.state == 1), x, slanted)
        return _forced(name, x, torch.from_numpy(kink.state), self._first)

    def _rectify(self, x: torch.Tensor, passed: torch.Tensor, top: float) -> torch.Tensor:
        """Several ReLUs of one tensor are one, as the exporter has it: PNASNet's cells show it."""
        for source, version, limit, result in self._rectified:
            if source is x and version == x._version and limit == top:
                return result
        result = _Rectify.apply(x, passed, top, self._rule)
        self._rectified.append((x, x._version, top, result))
        return result


class _Calls(TorchFunctionMode):
    """Numbers the calls of a pass as `_Kinks` does, and notes how far their results are."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.apart: dict[int, float] = {}
        self.activations: set[int] = set()
        self._values, self._size, self._calls = values, float(values.norm()), 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape == self._values.shape:
            self.apart[self._calls] = float((result - self._values).norm()) / self._size
            if getattr(func, "__name__", "") in _KINDS:
                self.activations.add(self._calls)
        self._calls += 1
        return result


def _state(
    name: str, kind: str, x: torch.Tensor, args: Any, kwargs: dict[str, Any], first: int
) -> Array:
    value = x.detach()
    if kind == "max" and name != "max_pool2d":
        _, place = functional.adaptive_max_pool2d(value, args[1], return_indices=True)
        return _planes(x, first).numpy() + place.numpy()
    if kind == "max":
        options = {**kwargs, "return_indices": True}
        _, place = functional.max_pool2d(value, *args[1:], **options)
        return _planes(x, first).numpy() + place.numpy()
    if kind == "clip":
        assert (0.0, 6.0) in (args[1:3], (kwargs.get("min_val"), kwargs.get("max_val"))), kwargs
        return clip_state(value.numpy(), 6.0)
    return (hard_state if kind == "hard" else relu_state)(value.numpy())


def _planes(x: torch.Tensor, first: int) -> torch.Tensor:
    """Flat position in the batch at which each plane of x (N, C, H, W) begins, (N, C, 1, 1)."""
    n, c, h, w = x.shape
    return (torch.arange(first * c, (first + n) * c) * (h * w)).reshape(n, c, 1, 1)


def _forced(name: str, x: torch.Tensor, state: torch.Tensor, first: int) -> torch.Tensor:
    """The activation with every element on the linear piece that `state` says."""
    if _KINDS[name] == "max":
        place = state - _planes(x, first)
        maxima = x.flatten(2).gather(2, place.flatten(2)).reshape(state.shape)
        return (maxima, place) if name.endswith("with_indices") else maxima
    low, middle = state == 0, state == 1
    if name in ("relu", "relu_"):
        return torch.where(middle, x, 0.0)
    if name == "hardswish":
        return torch.where(low, 0.0, torch.where(middle, x * (x + 3) / 6, x))
    if name == "hardsigmoid":
        return torch.where(low, 0.0, torch.where(middle, (x + 3) / 6, 1.0))
    return torch.where(low, 0.0, torch.where(middle, x, 6.0))
