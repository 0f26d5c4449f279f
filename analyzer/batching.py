"""Many images through one session: together where that is proven safe, else one by one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from analyzer.errors import AnalyzerError
from analyzer.image_input import ImageInput
from analyzer.pictures import Picture
from analyzer.preprocess import Preprocess
from analyzer.session import Arrays, Session

BATCH_SIZE: Final = 8
OPEN_SIZE: Final = 224
_TWO_PICTURES: Final = 2 * 3 * 224 * 224  # numbers that a run on a CPU takes
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

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `Session.run`."""


def run_all(
    session: Runs, inputs: Arrays, batching: Batching, size: int | None
) -> dict[str, npt.NDArray[Any]]:
    """Run N images in batches and join the outputs along their first axis.

    Args:
        session: The model.
        inputs: Arrays with N rows each, the images first.
        batching: What the model allows.
        size: The largest batch wanted; None takes `usual_size`.

    Returns:
        All outputs of one image; of several the outputs that have one row for each: others (the
        boxes that a detector kept) belong to no image in particular.
    """
    images = next(iter(inputs.values()))
    count = len(images)
    step = (size or usual_size(session.device, images.shape[1:])) if batching.free else 1
    parts = []
    for start in range(0, count, step):
        rows = {name: array[start : start + step] for name, array in inputs.items()}
        if start and start + step > count:  # a smaller batch would need a session of its own
            filled = start + step - count
            rows = {n: np.concatenate([a, a[-1:].repeat(filled, axis=0)]) for n, a in rows.items()}
        if batching.fixed is not None and batching.fixed > 1:
            # Copies of the one image fill the batch, so that no other image can influence it.
            rows = {name: np.repeat(array, batching.fixed, axis=0) for name, array in rows.items()}
            parts.append({name: array[:1] for name, array in session.run(rows).items()})
        else:
            parts.append(session.run(rows))
    if count == 1:
        return parts[0]
    together = min(step, count)
    return {
        name: np.concatenate([part[name] for part in parts])[:count]
        for name in parts[0]
        if all(part[name].shape[:1] == (together,) for part in parts)
    }


def usual_size(device: Literal["cpu", "cuda"], picture: Sequence[int]) -> int:
    """How many pictures a run takes where nobody says: 8, on a CPU as many as make two of 224².

    Of larger batches the activations that the backward pass reads again have left the caches: eight
    at once cost, by picture, 1.37 times as much for the gradient of MobileNetV2, 1.22 for
    EfficientNet-B0, 1.02 for ResNet-50; one at a time 1.03, 1.09 and 1.02 (two threads).

    Args:
        device: Where they run.
        picture: The shape of one.
    """
    if device == "cuda":
        return BATCH_SIZE
    return min(max(_TWO_PICTURES // max(math.prod(picture), 1), 1), BATCH_SIZE)


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
