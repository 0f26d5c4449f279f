"""What a verification found: figures beside their bars."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["ok", "failed", "not run"]


class NotRunError(Exception):
    """A check does not apply here; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What one check measured.

    Attributes:
        figure: The error, 0 where all is right.
        bar: The largest error allowed.
        note: What was measured, or what is wrong, in one sentence.
        sound: False where the check failed whatever the figure says.
    """

    figure: float
    bar: float
    note: str
    sound: bool = True


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: For scripts; it never changes.
        title: For people.
        verdict: "ok", "failed" or "not run".
        figure: The relative error; infinite where nothing could be compared, None where the check
            did not run or stopped.
        bar: The largest figure allowed; 0 asks for equal bits.
        note: What was measured; why it failed or was not run.
        seconds: How long it took.
    """

    name: str
    title: str
    verdict: Verdict
    figure: float | None
    bar: float | None
    note: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which knows no infinity: it becomes None."""
        finite = self.figure is not None and math.isfinite(self.figure)
        return {**asdict(self), "figure": self.figure if finite else None}


@dataclass(frozen=True)
class Verification:
    """All checks of one model.

    Attributes:
        model: The file's name.
        sha256: The file's hash.
        layer: The layer whose gradient was checked; None where the model has none for a CAM.
        picture: Shape of the pictures, in the model's layout, without the batch.
        checks: In the order in which they ran.
    """

    model: str
    sha256: str
    layer: str | None
    picture: tuple[int, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """No check that ran has failed."""
        return not any(check.verdict == "failed" for check in self.checks)

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(check.verdict == verdict for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the verdict included."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "passed": self.passed,
            "layer": self.layer,
            "picture": list(self.picture),
            "checks": [check.as_dict() for check in self.checks],
        }
