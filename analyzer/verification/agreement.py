"""The explanation model against itself: optimised and not, together and apart, on both devices."""

from collections.abc import Sequence
from typing import Final

import numpy as np

import graph_rewrites as gr
from analyzer.errors import MissingProviderError
from analyzer.session import Device, Optimization, Session, settle
from analyzer.verification import distance
from analyzer.verification.decisions import decisions, expose, flips, impose
from analyzer.verification.result import NotRunError, Outcome
from analyzer.verification.subject import Array, Subject

SAME_KERNELS: Final = 1e-5
# Two float32 computations of one gradient, flips apart. Rounding alone, once the optimiser has
# folded normalisations into convolutions, comes to 1.3e-5 in networks with squeeze and excitation.
OTHER_KERNELS: Final = 1e-4


def optimised(subject: Subject) -> Outcome:
    """Maps and scores of the optimised and of the unoptimised runtime."""
    return _compare(subject, "cpu", "none")


def lowered(subject: Subject) -> Outcome:
    """Maps and scores of the portable model and of the form that the CPU runs fastest."""
    return _compare(subject, "cpu", "all", lower=True)


def devices(subject: Subject) -> Outcome:
    """Maps and scores of the CPU and of CUDA.

    Raises:
        NotRunError: CUDA does not load.
    """
    try:
        settle("cuda")
    except MissingProviderError as error:
        reason = str(error).removeprefix("device 'cuda': ")
        raise NotRunError(f"CUDA does not load: {reason}") from error
    return _compare(subject, "cuda", "all")


def together(subject: Subject) -> Outcome:
    """Different images in one batch, and each in a batch of its own copies.

    Both are batches of one size, so that the same kernels run; that one image alone gives the same
    outputs is what `Analyzer.batch` has proven.

    Raises:
        NotRunError: One image at a time is all that the model takes, or an output is not finite.
    """
    loaded, fixed = subject.loaded, subject.fixed_batch
    if fixed == 1:
        raise NotRunError(loaded.batch_reason)
    session = Session(subject.explanation)
    (images, *_) = subject.batches(fixed or 2)
    feeds = subject.feeds(images)
    joint = session.run(feeds)
    kept = _one_row_an_image(subject)
    apart: dict[str, list[Array]] = {name: [] for name in kept}
    for i in range(len(images)):
        copies = {
            name: np.repeat(value[i : i + 1], len(images), 0) for name, value in feeds.items()
        }
        alone = session.run(copies)
        for name in kept:
            apart[name].append(alone[name][i])
    figure = max(distance.of_outputs(list(joint[name]), apart[name]) for name in kept)
    if figure <= SAME_KERNELS:
        distance.must_be_finite({name: [joint[name]] for name in kept}, "the outputs")
    lists = len(kept) < len(joint)  # then `Analyzer` runs images apart for that reason alone
    sound = fixed is not None or loaded.batch == "free" or lists
    return Outcome(figure, SAME_KERNELS, loaded.batch_reason, sound)


def _one_row_an_image(subject: Subject) -> list[str]:
    """The outputs with a row for each image; a detector's boxes, all in one list, have not."""
    leading = {o.name: o.type.tensor_type.shape.dim[:1] for o in subject.explanation.graph.output}
    images = next(dim for name, dim in leading.items() if name.startswith("map/"))
    return [name for name, dim in leading.items() if dim == images]


def _compare(
    subject: Subject, device: Device, level: Optimization, *, lower: bool = False
) -> Outcome:
    """What the optimised CPU finds against another run's on which its decisions are imposed.

    Raises:
        NotRunError: A map or score is not finite.
    """
    model = subject.explanation
    deciding = decisions(model)
    compared = [o.name for o in model.graph.output if o.name.startswith(("map/", "score/"))]
    usual, other = Session(expose(model, deciding)), None
    expected: list[Sequence[Array]] = []
    found: list[Sequence[Array]] = []
    flipped = 0
    for images in subject.batches():
        feeds = subject.feeds(images)
        wanted = usual.run(feeds)
        made = {name: wanted[name] for name in deciding}
        asked = {**feeds, **made}
        if other is None:
            imposed = impose(model, made)
            shapes = {name: value.shape for name, value in asked.items()}
            fast = gr.lower(imposed, device, shapes) if lower else imposed
            other = Session(fast, device, level)
        given = other.run(asked)
        flipped += flips(made, given)
        expected.append([wanted[name] for name in compared])
        found.append([given[name] for name in compared])
    pairs = zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True)
    figure = max(distance.of_gradients(ours, theirs) for ours, theirs in pairs)
    if figure <= OTHER_KERNELS:
        own = dict(zip(compared, zip(*expected, strict=True), strict=True))
        distance.must_be_finite(own, "the maps or scores")
    return Outcome(figure, OTHER_KERNELS, _note(flipped))


def _note(flipped: int) -> str:
    if not flipped:
        return "no mask, maximum or quantised value flipped"
    return f"apart from {flipped} flipped elements of masks, maxima and quantised values"
