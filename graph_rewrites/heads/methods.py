"""The maps that one graph can express, and what each needs from the sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class MapMethod:
    """What a method needs.

    Attributes:
        relu: rule of the ReLUs on the way back; also the prefix of the sweep.
        pixels: whether it reads the gradient at the picture.
        features: whether it reads a layer and the (true) gradient there.
        signed: whether the map keeps the picture's channels and signs.
    """

    relu: str
    pixels: bool = True
    features: bool = False
    signed: bool = True


METHODS: Mapping[str, MapMethod] = MappingProxyType(
    {
        "saliency": MapMethod("gradient", signed=False),
        "gradient": MapMethod("gradient"),
        "deconvnet": MapMethod("deconvnet"),
        "guided_backprop": MapMethod("guided"),
        "grad_cam": MapMethod("gradient", pixels=False, features=True, signed=False),
        "guided_grad_cam": MapMethod("guided", features=True),
    }
)
"""By name; Grad-CAM's own gradient is always the true one, also inside guided Grad-CAM."""
