"""What a backward pass gave, whichever framework or runtime made it, and how two are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BATCH, INPUTS = 2, 3  # pictures in a batch, batches
SHARP_BAR, ROUNDING_BAR, FORCED_BAR = 1e-6, 1e-4, 1e-5
Array = np.ndarray
NOTHING = np.zeros(0)


@dataclass(frozen=True)
class Kink:
    """Where one activation or max-pool of a forward pass stood.

    Attributes:
        kind: "relu", "clip", "leaky" (PReLU too), "hard" (hard-sigmoid and hard-swish) or "max".
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


def picture_by_picture(
    one_pass: Callable[[Array, Array, Sequence[Kink] | None, int], Gradients],
    images: Array,
    ct: Array,
    replay: Sequence[Kink] | None,
) -> Gradients:
    """The pass of a batch that would not fit into memory, from those of its pictures.

    Args:
        one_pass: takes a picture, its cotangent, its kinks, and the number that it has.
        images: the batch.
        ct: its cotangent.
        replay: its kinks, where they are given.
    """
    passes = []
    for n in range(len(images)):
        one, kinks = slice(n, n + 1), replay
        if replay is not None:
            kinks = [Kink(kink.kind, kink.state[one]) for kink in replay]
        passes.append(one_pass(images[one], ct[one], kinks, n))
    fields = ("image", "layer", "activation")
    image, layer, activation = (np.concatenate([getattr(p, f) for p in passes]) for f in fields)
    same_kinks = zip(*(p.kinks for p in passes), strict=True)
    states = (Kink(same[0].kind, np.concatenate([k.state for k in same])) for same in same_kinks)
    return Gradients(image, layer, activation, tuple(states), passes[0].before_layer)


def relu_state(x: Array) -> Array:
    return (x > 0).astype(np.int8)


def clip_state(x: Array, top: float) -> Array:
    return (x > 0).astype(np.int8) + (x >= top)


def hard_state(x: Array) -> Array:
    return (x > -3).astype(np.int8) + (x >= 3)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Noise of each shape, float32."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def count_flips(ours: Sequence[Kink], theirs: Sequence[Kink], n: int) -> list[int]:
    """How many elements of picture n stand on another piece, for each kink of a pass.

    What a network computes once for all pictures, positions for example, belongs to each of them.
    """
    counts = []
    for a, b in zip(ours, theirs, strict=True):
        assert a.kind == b.kind, f"{a.kind} in the graph, {b.kind} in PyTorch"
        assert a.state.shape == b.state.shape
        row = n if len(a.state) == BATCH else 0
        counts.append(int(np.sum(a.state[row] != b.state[row])))
    return counts


def distance(value: np.ndarray, truth: np.ndarray) -> float:
    """‖value - truth‖ / ‖truth‖."""
    assert value.shape == truth.shape, f"{value.shape} instead of {truth.shape}"
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))
