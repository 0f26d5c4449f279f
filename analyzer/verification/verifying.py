"""verify(): all checks, in the order in which an error travels."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import graph_rewrites as gr
from analyzer.errors import AnalyzerError
from analyzer.model import Analyzer
from analyzer.verification import agreement, forward, sharp
from analyzer.verification.result import Check, NotRunError, Outcome, Verdict, Verification
from analyzer.verification.sharp import Effort
from analyzer.verification.subject import Subject

DIRECTIONS: Final = 4
BUDGET_S: Final = 60.0

TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "outputs/canonical": "outputs of the canonical model",
        "outputs/explanation": "outputs of the explanation model",
        "gradient/input": "gradient at the picture, float64",
        "gradient/layer": "gradient at the layer, float64",
        "optimised": "optimised against unoptimised",
        "lowered": "lowered against portable",
        "batch": "images together and apart",
        "devices": "CPU against CUDA",
    }
)


def verify(
    loaded: Analyzer,
    *,
    output: str | None = None,
    layer: str | None = None,
    rules: gr.RuleTable = gr.DEFAULT_RULES,
    directions: int = DIRECTIONS,
    budget_s: float = BUDGET_S,
    progress: Callable[[str], None] | None = None,
) -> Verification:
    """Check on a model itself that its canonical form, gradients and explanation model are right.

    Everything runs on drawn pictures, 64 pixels wide where the file leaves the size open.

    Args:
        loaded: The model.
        output: What is explained; see `Analyzer.explain`.
        layer: The layer of the CAM and of the second gradient; None is the default one.
        rules: The rules of the backward graph, should they not be the package's own.
        directions: Random directions in which each gradient has to agree with differences.
        budget_s: Seconds for each gradient; one direction is compared, however long it takes.
        progress: Told, line by line, what is under way.

    Returns:
        Every check with its figure, its bar and its verdict; a check that stops has failed.

    Raises:
        ModelRejectedError: The model does not run, or cannot be differentiated.
        UsageError: An unknown output or layer.
    """
    say = progress or (lambda _: None)
    subject = Subject.of(loaded, output, layer, rules)
    effort = Effort(directions, budget_s, say)
    checks: dict[str, Callable[[], Outcome]] = {
        "outputs/canonical": lambda: forward.canonical_outputs(subject),
        "outputs/explanation": lambda: forward.explanation_outputs(subject),
        "gradient/input": lambda: sharp.input_gradient(subject, effort),
        "gradient/layer": lambda: sharp.layer_gradient(subject, effort),
        "optimised": lambda: agreement.optimised(subject),
        "lowered": lambda: agreement.lowered(subject),
        "batch": lambda: agreement.together(subject),
        "devices": lambda: agreement.devices(subject),
    }
    return Verification(
        model=loaded.name,
        sha256=loaded.sha256,
        layer=subject.layer,
        picture=subject.pictures.shape[1:],
        checks=tuple(_run(name, check, say) for name, check in checks.items()),
    )


def _run(name: str, check: Callable[[], Outcome], say: Callable[[str], None]) -> Check:
    """One check, timed; what it raises is its verdict."""
    say(TITLES[name])
    begun = time.perf_counter()
    verdict: Verdict
    figure = bar = None
    try:
        outcome = check()
    except NotRunError as reason:
        verdict, note = "not run", str(reason)
    except AnalyzerError as error:
        verdict, note = "failed", f"stopped: {error}"
    else:
        figure, bar, note = outcome.figure, outcome.bar, outcome.note
        verdict = "ok" if outcome.sound and figure <= bar else "failed"
    seconds = round(time.perf_counter() - begun, 3)
    return Check(name, TITLES[name], verdict, figure, bar, note, seconds)
