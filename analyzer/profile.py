"""Where the time of an explanation goes, and what holds it back."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final

from analyzer.session import NodeTime

PHASES: Final = ("decode", "forward", "backward", "maps", "layout", "write")
"""Read and prepare the picture; the network; the way back; targets and map arithmetic; changes
between the runtime's layouts; save maps and pictures."""

_COSTLIEST: Final = 8
_CHANGES: Final = frozenset({"ReorderInput", "ReorderOutput"})
_SLOW: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ConvTranspose": "a stride above 1, or a weight that is computed: no blocked kernel",
        "GatherND": "moves single numbers",
        "MaxPool": "with indices, which only a slow kernel gives",
        "ScatterElements": "adds up what overlapping windows put back",
        "ScatterND": "moves single numbers",
        "Where": "a mask of quantised numbers, or shapes left open: leaves the blocked layout",
    }
)


@dataclass(frozen=True)
class OperatorTime:
    """One operator in one phase.

    Attributes:
        phase: One of `PHASES`.
        operator: Its name in the optimised graph.
        count: How many nodes.
        seconds: Of all of them, in one run.
        why: Why it is off the fast path; "" where it is not.
    """

    phase: str
    operator: str
    count: int
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Profile:
    """The time of one picture's explanation.

    Attributes:
        seconds: By phase; those that were not measured are absent.
        run: Seconds of one run of the explanation model, the median.
        operators: Every operator, the costliest first.
        device: "cpu" or "cuda".
    """

    seconds: Mapping[str, float]
    run: float
    operators: Sequence[OperatorTime]
    device: str

    @property
    def off_the_fast_path(self) -> list[OperatorTime]:
        """The operators that cost more than they need, and why."""
        return [operator for operator in self.operators if operator.why]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        operators = [asdict(operator) for operator in self.operators]
        return {**asdict(self), "seconds": dict(self.seconds), "operators": operators}

    def lines(self) -> list[str]:
        """For people."""
        total = sum(self.seconds.values()) or 1.0
        found = [f"profile of one picture on the {self.device}, {_ms(total)}:"]
        for phase, seconds in self.seconds.items():
            found.append(f"  {phase:9}{_ms(seconds):>10}  {seconds / total:4.0%}")
        found.append("costliest operators:")
        found += [f"  {_named(operator)}" for operator in self.operators[:_COSTLIEST]]
        if self.off_the_fast_path:
            found.append("off the fast path:")
            found += [f"  {_named(o)}: {o.why}" for o in self.off_the_fast_path]
        return found


def profile_of(
    nodes: Iterable[NodeTime], run: float, others: Mapping[str, float], device: str
) -> Profile:
    """Put the times of nodes together.

    Args:
        nodes: Of the optimised explanation model.
        run: Seconds of one run.
        others: Seconds of the phases outside the model.
        device: "cpu" or "cuda".
    """
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for node in nodes:
        phase = _phase(node)
        groups[phase, node.operator, _why(node, phase, device)].append(node.seconds)
    found = [OperatorTime(*key[:2], len(t), sum(t), key[2]) for key, t in groups.items()]
    operators = sorted(found, key=lambda operator: -operator.seconds)
    seconds = dict(others)
    for operator in operators:
        seconds[operator.phase] = seconds.get(operator.phase, 0.0) + operator.seconds
    known: dict[str, float] = {phase: seconds[phase] for phase in PHASES if phase in seconds}
    return Profile(known, run, tuple(operators), device)


def _phase(node: NodeTime) -> str:
    if node.operator in _CHANGES:
        return "layout"
    if node.name.startswith("bwd/"):
        return "backward"
    return "maps" if node.name.startswith(("heads/", "map/", "target")) else "forward"


def _why(node: NodeTime, phase: str, device: str) -> str:
    if device == "cuda":
        on_cpu = node.provider.startswith("CPU")
        return "runs on the CPU, and its numbers are copied there and back" if on_cpu else ""
    return _SLOW.get(node.operator, "") if phase == "backward" else ""


def _named(operator: OperatorTime) -> str:
    name = f"{operator.phase} {operator.operator} × {operator.count}"
    return f"{name:36}{_ms(operator.seconds):>10}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
