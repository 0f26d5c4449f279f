"""Many images through one session: in one run where that is proven safe and faster, else apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from analyzer.errors import AnalyzerError
from analyzer.image_input import ImageInput
from analyzer.pictures import Picture
from analyzer.preprocess import Preprocess
from analyzer.session import Arrays, Session

OPEN_SIZE: Final = 224
TOLERANCE: Final = 1e-5
FLOAT16_TOLERANCE: Final = 2e-3  # one unit in the last place of a float16 output is 1e-3


@dataclass(frozen=True)
class Batching:
    """How many images one run may take.

    Attributes:
        fixed: None where any number may run together, else the number that the file demands.
        alone: Each image must run by itself, because images of a batch influence each other.
        reason: Why, in one sentence.
    """

    fixed: int | None
    alone: bool
    reason: str

    @property
    def free(self) -> bool:
        """Any number of images may run together."""
        return self.fixed is None and not self.alone


def prove(session: Session, name: str, pair: npt.NDArray[np.generic]) -> Batching:
    """Run two different inputs together and apart; the outputs must agree.

    Args:
        session: The canonical model.
        name: Its image input.
        pair: (2, …) two different inputs; equal ones would hide every fault.

    Returns:
        Free only where every output agrees: integers exactly, floats to 1e-5 of the largest.
    """
    try:
        together = session.run({name: pair})
        apart = [session.run({name: pair[i : i + 1]}) for i in (0, 1)]
    except AnalyzerError as error:
        return Batching(None, True, f"two images do not run together ({error})")
    for output, joint in together.items():
        single = [run[output] for run in apart]
        if any(one.shape[:1] != (1,) for one in single) or joint.shape[:1] != (2,):
            return Batching(None, True, f"output {output!r} does not keep the batch axis")
        difference = _difference(joint, np.concatenate(single))
        if difference > _tolerance(joint):
            return Batching(
                None,
                True,
                f"two different images together and apart differ by {difference:.1e} "
                f"in output {output!r}",
            )
    return Batching(None, False, "two different images give the same outputs together and apart")


def distinct_pair(image: ImageInput, preprocess: Preprocess) -> npt.NDArray[np.generic]:
    """Two different pictures of noise, preprocessed; an open size becomes 224, the usual one."""
    height, width = preprocess.size or (image.height or OPEN_SIZE, image.width or OPEN_SIZE)
    rng = np.random.default_rng(0)
    if image.channels != len(preprocess.channels):
        return rng.standard_normal(image.shape(2, height, width)).astype(image.dtype)
    fitted = replace(preprocess, size=(height, width))
    noise = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    pictures = [Picture("noise", pixels, "", "pixels", "noise") for pixels in noise]
    return np.stack([fitted.apply(picture, image)[0] for picture in pictures])


class Runs(Protocol):
    """What runs a model: a session."""

    def run_size(self, picture: Sequence[int], size: int | None) -> int:
        """How many images of one shape are best run together, `size` at most."""

    def run_each(self, batches: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """See `SpecializedSession.run_each`."""


def run_all(
    session: Runs, inputs: Arrays, batching: Batching, size: int | None
) -> dict[str, npt.NDArray[Any]]:
    """Run N images in batches and join the outputs along their first axis.

    Args:
        session: The model.
        inputs: Arrays with N rows each, the images first.
        batching: What the model allows.
        size: The most images at a time; None leaves the choice to us.

    Returns:
        All outputs of one image; of several the outputs that have one row for each: others (the
        boxes that a detector kept) belong to no image in particular.
    """
    images = next(iter(inputs.values()))
    count = len(images)
    shared = batching.free and count > 1
    most = session.run_size(images.shape[1:], size) if shared else 1
    step = math.ceil(count / math.ceil(count / most))  # nine are five and four, not eight and one
    batches = []
    for start in range(0, count, step):
        rows = {name: array[start : start + step] for name, array in inputs.items()}
        if start and start + step > count:  # a smaller batch would need a session of its own
            filled = start + step - count
            rows = {n: np.concatenate([a, a[-1:].repeat(filled, axis=0)]) for n, a in rows.items()}
        if batching.fixed is not None and batching.fixed > 1:
            # Copies of the one image fill the batch, so that no other image can influence it.
            rows = {name: np.repeat(array, batching.fixed, axis=0) for name, array in rows.items()}
        batches.append(rows)
    parts = session.run_each(batches)
    if batching.fixed is not None and batching.fixed > 1:
        parts = [{name: array[:1] for name, array in part.items()} for part in parts]
    if count == 1:
        return parts[0]
    together = min(step, count)
    return {
        name: np.concatenate([part[name] for part in parts])[:count]
        for name in parts[0]
        if all(part[name].shape[:1] == (together,) for part in parts)
    }


def _difference(joint: npt.NDArray[Any], single: npt.NDArray[Any]) -> float:
    """The largest difference, relative to the largest value; integers count in steps."""
    if joint.shape != single.shape:
        return float("inf")
    if joint.dtype.kind != "f":
        return float(np.count_nonzero(joint != single))
    wide, other = joint.astype(np.float64), single.astype(np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(other).all()):
        return 0.0 if np.array_equal(wide, other, equal_nan=True) else float("inf")
    largest = max(float(np.abs(other).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return float(np.abs(wide - other).max(initial=0.0)) / largest


def _tolerance(output: npt.NDArray[Any]) -> float:
    if output.dtype == np.float16:
        return FLOAT16_TOLERANCE
    return TOLERANCE if output.dtype.kind == "f" else 0.0
