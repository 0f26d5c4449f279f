"""One published method per file, and the table that feeds API, CLI, README and tests."""

from collections.abc import Mapping
from types import MappingProxyType

from analyzer.methods.deconvnet import DECONVNET
from analyzer.methods.grad_cam import GRAD_CAM
from analyzer.methods.gradient import GRADIENT
from analyzer.methods.guided_backprop import GUIDED_BACKPROP
from analyzer.methods.guided_grad_cam import GUIDED_GRAD_CAM
from analyzer.methods.method import Method
from analyzer.methods.saliency import SALIENCY

__all__ = ["METHODS", "Method"]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            SALIENCY,
            GRADIENT,
            DECONVNET,
            GUIDED_BACKPROP,
            GRAD_CAM,
            GUIDED_GRAD_CAM,
        )
    }
)
