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
from analyzer.session import Session
from analyzer.verification.decisions import expose
from analyzer.verification.result import NotRunError, Outcome
from analyzer.verification.subject import Array, Subject
from graph_rewrites.canonical import open_canonical
from graph_rewrites.layers import resolve

BAR: Final = 1e-6
# In units of the tensor's standard deviation, the usual one first. Long ones cross kinks, short
# ones leave the difference few digits; no step makes a wrong gradient agree.
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
    (images, *_) = subject.batches(subject.fixed_batch or 1)
    return _check(subject, effort, subject.image, float(np.std(images.astype(np.float64))))


def layer_gradient(subject: Subject, effort: Effort) -> Outcome:
    """The gradient at the layer.

    Raises:
        NotRunError: The model has no such layer.
    """
    if subject.layer is None:
        raise NotRunError("the model has no layer that a CAM can use")
    return _check(subject, effort, subject.layer, _deviation(subject, subject.layer))


def _check(subject: Subject, effort: Effort, wrt: str, deviation: float) -> Outcome:
    (images, *_) = subject.batches(subject.fixed_batch or 1)
    with rewriting(subject.loaded.name):
        grads = gr.differentiate(subject.loaded.model, wrt=wrt, rules=subject.rules)
    steps = [step * (deviation or 1.0) for step in _STEPS]
    begun = time.perf_counter()
    agreed: list[float] = []
    off: list[float] = []
    for seed in range(effort.directions + SPARE):
        error = _directional_error(grads, {subject.image: images}, wrt, steps, seed)
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
    grads: onnx.ModelProto, inputs: dict[str, Array], wrt: str, steps: list[float], seed: int
) -> float:
    try:
        return gr.testing.directional_error(
            grads, inputs, wrt, directions=1, steps=steps, seed=seed
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


def _deviation(subject: Subject, layer: str) -> float:
    """Standard deviation of the layer's values."""
    model = subject.loaded.model
    tensor = resolve(open_canonical(model), layer).tensor
    (images, *_) = subject.batches()
    values = Session(expose(model, [tensor])).run({subject.image: images}, [tensor])[tensor]
    return float(np.std(values.astype(np.float64)))
