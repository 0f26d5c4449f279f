"""What the conformance run asks of a framework."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from tests.oracles.passes import Array, Gradients, Kink

SAME = 0.1  # two float32 passes through one network, a chaotic one even, differ by less
LARGE = 400  # pixels; a batch of such pictures would not fit into memory

Place: TypeAlias = int | None  # where a framework computes the default layer


class Reference(Protocol):
    """One network in its own framework, in float32 and in float64, with the same weights.

    Attributes:
        shape: of one image, in the network's own layout.
        spatial_axes: of a batch of images.
        scores: shape of what is explained, batch included.
        kinks: the kinds of kink that its passes tell, see `passes.Kink`.
        of: its tensor in the exported graph; None for the class scores that are found there.
    """

    shape: tuple[int, ...]
    spatial_axes: tuple[int, int]
    scores: tuple[int, ...]
    kinks: frozenset[str]
    of: str | None

    def __init__(self, member: str) -> None:
        """Build "<zoo>/<name>"."""

    def export(self, path: Path) -> None:
        """Write the network's ONNX file, its picture named "input", unless `path` is a file."""

    def locate(self, images: Array, values: Array) -> Place:
        """The first place that computes `values` from `images`, in float32; None where none."""

    def gradients(
        self,
        images: Array,
        ct: Array,
        place: Place,
        *,
        double: bool,
        rule: str = "gradient",
        replay: Sequence[Kink] | None = None,
    ) -> Gradients:
        """One backward pass of Σ ct · scores, laid out as the exported graph lays its tensors out.

        Args:
            images: a batch.
            ct: cotangent of the scores.
            place: where the gradient is wanted beside the picture.
            double: in float64.
            rule: of the ReLUs.
            replay: the linear pieces that every kink is held to.
        """
