"""Float64 norms for `onnx.reference`, beside those of `sharp_ops`.

`onnx.reference` 1.23 divides an LpPool at the border by fewer taps than it multiplies it with,
forgets the modulus in an LpNormalization with odd p, and has no GlobalLpPool.
"""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun

from graph_rewrites.sharp_ops import Array, Attribute, Conv


class LpPool(Conv):
    """(Σ |x|^p)^(1/p) over the taps inside the input."""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array]:  # type: ignore[override]
        p, channels = attributes["p"], x.shape[1]
        ones = np.ones((channels, 1, *attributes["kernel_shape"]))
        (total,) = super()._run(np.abs(x) ** p, ones, group=channels, **attributes)
        return (total ** (1.0 / p),)


class GlobalLpPool(OpRun):
    """(Σ |x|^p)^(1/p) over each channel."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array]:
        return (_norm(x, attributes["p"], tuple(range(2, x.ndim))),)


class LpNormalization(OpRun):
    """x / (Σ |x|^p)^(1/p) along one axis; 0 where the norm is 0."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Attribute) -> tuple[Array]:
        norm = _norm(x, attributes["p"], (attributes["axis"],))
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm > 0),)


def _norm(x: Array, p: int, axes: tuple[int, ...]) -> Array:
    total: Array = (np.abs(x) ** p).sum(axis=axes, keepdims=True)
    return total ** (1.0 / p)


NORMS: tuple[type[OpRun], ...] = (GlobalLpPool, LpNormalization, LpPool)
