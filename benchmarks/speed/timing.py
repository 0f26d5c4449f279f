"""Contenders by turns in one process: what is compared has run under the same conditions."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Run = Callable[[], object]
_SETTLE = 0.02  # seconds: worker threads of the one before stop spinning


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender.

    Attributes:
        best: of all rounds; other work on the machine only ever adds to it.
        median: of all rounds.
        spread: the distance of the upper quartile from the lower one, over the median.
    """

    best: float
    median: float
    spread: float


def by_turns(contenders: Mapping[str, Run], budget: float, least: int = 5) -> dict[str, Timing]:
    """Run each contender once a round, for at least `least` rounds and about `budget` seconds.

    Before every measured run the contender runs once unmeasured, so that its caches and threads are
    as they would be without the others.
    """
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    begin = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        while len(next(iter(seconds.values()))) < least or time.perf_counter() - begin < budget:
            for name, run in contenders.items():
                time.sleep(_SETTLE)
                run()
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: _timing(values) for name, values in seconds.items()}


def _timing(seconds: Sequence[float]) -> Timing:
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return Timing(min(seconds), float(median), float((high - low) / median))
