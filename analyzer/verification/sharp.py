"""The backward graph against central differences of its own forward, in float64."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

import graph_rewrites as gr
from analyzer.errors import AnalyzerError
from analyzer.rewriting import rewriting
from analyzer.verification.result import NotRunError, Outcome
from analyzer.verification.subject import Array, Subject

BAR: Final = 1e-6
# The usual one first. Long ones cross kinks, short ones leave the difference few digits; no step
# makes a wrong gradient agree.
_STEPS: Final = (1e-5, 1e-4, 1e-6, 1e-3, 1e-7)

# A point can lie so near a kink that every step crosses it; a wrong gradient is off everywhere.
SPARE: Final = 2


@dataclass(frozen=True)
class Effort:
    """How much is spent on one gradient.

    Attributes:
        directions: Random directions, each from another point and for another cotangent.
        budget_s: Seconds after which no further direction is begun, once one has agreed.
        say: Told what is under way.
    """

    directions: int
    budget_s: float
    say: Callable[[str], None]


def input_gradient(subject: Subject, effort: Effort) -> Outcome:
    """The gradient at the picture."""
    return _check(subject, effort, subject.image)


def layer_gradient(subject: Subject, effort: Effort) -> Outcome:
    """The gradient at the layer.

    Raises:
        NotRunError: The model has no such layer.
    """
    if subject.layer is None:
        raise NotRunError("the model has no layer that a CAM can use")
    return _check(subject, effort, subject.layer)


def _check(subject: Subject, effort: Effort, wrt: str) -> Outcome:
    (images, *_) = subject.batches(subject.fixed_batch or 1)
    of = subject.explained.scores.tensor
    with rewriting(subject.loaded.name):
        grads = gr.differentiate(subject.loaded.model, wrt=wrt, of=of, rules=subject.rules)
    begun = time.perf_counter()
    agreed: list[float] = []
    off: list[float] = []
    for seed in range(effort.directions + SPARE):
        error = _directional_error(grads, {subject.image: images}, wrt, of, seed)
        (agreed if error <= BAR else off).append(error)
        spent = time.perf_counter() - begun
        effort.say(f"{wrt}: {len(agreed)} of {effort.directions} directions, {spent:.0f} s")
        late = bool(agreed) and spent > effort.budget_s
        if late or len(agreed) == effort.directions or len(off) > SPARE:
            break
    if len(off) > SPARE:
        return Outcome(min(off), BAR, _wrong(min(off)))
    return Outcome(max(agreed), BAR, _right(subject, effort, len(agreed), len(off)))


def _directional_error(
    grads: onnx.ModelProto,
    inputs: dict[str, Array],
    wrt: str,
    of: str,
    seed: int,
) -> float:
    try:
        return gr.testing.directional_error(
            grads, inputs, wrt, of, directions=1, steps=_STEPS, seed=seed
        )
    except MemoryError:
        raise
    except NotImplementedError as error:  # the evaluator knows not every operator
        raise NotRunError(f"no float64 evaluation: {error}") from error
    except Exception as error:  # whatever a wrong shape makes an operator raise
        what = f"{type(error).__name__}: {error}"
        raise AnalyzerError(f"its gradient does not evaluate in float64 ({what})") from error


def _wrong(error: float) -> str:
    if np.isfinite(error):
        return "it is not the derivative of what the file computes"
    return "the gradient is zero everywhere, not finite, or has another shape than its tensor"


def _right(subject: Subject, effort: Effort, agreed: int, off: int) -> str:
    note = "1 direction" if agreed == 1 else f"{agreed} directions"
    if agreed < effort.directions:
        note += f" of {effort.directions}, for want of time"
    if off:
        note += f"; {off} passed over, beside a kink"
    if subject.loaded.quantised:
        note += "; quantised values unrounded"
    return note
