"""An explanation model in the runtime, in the fastest form for the shapes that it runs on."""

import statistics
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy.typing as npt
import onnx

from analyzer.session import Arrays, NodeTime, Session
from graph_rewrites.lowering import lowered_graph

_KEPT: Final = 2

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class SpecializedSession:
    """A model opened once for each set of input shapes; the least recently used make room.

    The runtime stays in its fast layout only where it can prove that shapes are equal, so that a
    session is for one batch size and one picture size.

    Attributes:
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        device: Literal["cpu", "cuda"],
        threads: int | None = None,
    ) -> None:
        """Keep the model; nothing is opened before the first run."""
        self._model, self._threads = model, threads
        self.device: Literal["cpu", "cuda"] = device
        self._kept: OrderedDict[Shapes, Session] = OrderedDict()

    def run(
        self, inputs: Arrays, outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on inputs of any shapes; see `Session.run`."""
        return self._session(inputs).run(inputs, outputs)

    @property
    def settings(self) -> Mapping[str, object]:
        """What ran the last inputs: see `Session`, and the lowering."""
        last = next(reversed(self._kept.values()))
        return {**last.settings, "lowered": self.device}

    def profile(self, inputs: Arrays, runs: int = 7) -> tuple[list[NodeTime], float]:
        """What every node took, and one run as a whole: medians over `runs`, in seconds."""
        session = self._open(_shapes(inputs), profile=True)
        seconds = []
        for _ in range(runs):
            begun = time.perf_counter()
            session.run(inputs)
            seconds.append(time.perf_counter() - begun)
        return session.node_times(), statistics.median(seconds)

    def _session(self, inputs: Arrays) -> Session:
        key = _shapes(inputs)
        if key not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = self._open(key)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _open(self, shapes: Shapes, *, profile: bool = False) -> Session:
        lowered = lowered_graph(self._model, self.device, dict(shapes))
        light, weights = lowered.export_detached()
        return Session(light, self.device, threads=self._threads, weights=weights, profile=profile)


def _shapes(inputs: Arrays) -> Shapes:
    return tuple((name, value.shape) for name, value in sorted(inputs.items()))
