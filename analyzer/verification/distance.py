"""How far two arrays are apart, as the bars mean it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from analyzer.verification.result import NotRunError
from analyzer.verification.subject import Array


def of_outputs(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference over the largest value, of arrays that belong together."""
    return _ratio(found, expected, lambda flat: float(np.abs(flat).max(initial=0.0)))


def of_gradients(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """‖Δ‖ / ‖g‖, of arrays that belong together: one that is nearly zero has no scale itself."""
    return _ratio(found, expected, lambda flat: float(np.linalg.norm(flat)))


def must_be_finite(found: Mapping[str, Sequence[Array]], what: str) -> None:
    """Agreement of values that are not finite says nothing.

    Args:
        found: Arrays by their tensor's name.
        what: What they are, for the message.

    Raises:
        NotRunError: Some hold NaN or infinity.
    """
    spoilt = [
        name
        for name, arrays in found.items()
        if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")
    ]
    if spoilt:
        raise NotRunError(
            f"{what} are not finite: {', '.join(map(repr, spoilt))}; see whether the file and its "
            "preprocessing are right"
        )


def _ratio(
    found: Sequence[Array], expected: Sequence[Array], size: Callable[[Array], float]
) -> float:
    """Infinite for another shape or type, and where only one of the two is finite or not zero."""
    pairs = list(zip(found, expected, strict=True))
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return float("inf")
    ours, theirs = (
        np.concatenate([np.ravel(a) for a in arrays]) for arrays in zip(*pairs, strict=True)
    )
    if np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"):
        return 0.0
    wide, other = ours.astype(np.float64), theirs.astype(np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(other).all()):
        return float("inf")
    scale = size(other)
    return size(wide - other) / scale if scale else float("inf")
