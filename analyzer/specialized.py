"""An explanation model in the runtime, in the fastest form for the shapes that it runs on."""

import logging
import statistics
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal

import numpy.typing as npt
import onnx

from analyzer.errors import AnalyzerError
from analyzer.session import Arrays, NodeTime, Precision, Session
from graph_rewrites.errors import GraphRewriteError
from graph_rewrites.lowering import lowered_graph

_KEPT: Final = 2
_log = logging.getLogger(__name__)

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
        precision: Precision = "float32",
    ) -> None:
        """Keep the model; nothing is opened before the first run."""
        self._model, self._threads, self._precision = model, threads, precision
        self.device: Literal["cpu", "cuda"] = device
        self._failure = ""
        self._kept: OrderedDict[Shapes, Session] = OrderedDict()

    def run(
        self, inputs: Arrays, outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on inputs of any shapes; see `Session.run`.

        Should the lowered model not run, which is a defect of ours, the portable one does, and says
        so in a log message and in `settings`.
        """
        if not self._failure:
            try:
                return self._session(inputs).run(inputs, outputs)
            except (AnalyzerError, GraphRewriteError, ValueError) as error:
                failure = error
            found = self._portable.run(inputs, outputs)  # or it says what is wrong with the inputs
            self._failure = " ".join(str(failure).split())
            self._kept.clear()
            _log.warning("the portable model runs in place of the lowered one: %s", self._failure)
            return found
        return self._portable.run(inputs, outputs)

    @property
    def settings(self) -> Mapping[str, object]:
        """What ran the last inputs: see `Session`, and the lowering."""
        if self._failure:
            return {**self._portable.settings, "lowered": f"no: {self._failure}"}
        last = next(reversed(self._kept.values()))
        half = {"float16": True} if self._precision == "float16" else {}
        return {**last.settings, "lowered": self.device, **half}

    @cached_property
    def _portable(self) -> Session:
        return Session(self._model, self.device, threads=self._threads, precision=self._precision)

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
        half = self._precision == "float16"
        lowered = lowered_graph(self._model, self.device, dict(shapes), float16=half)
        light, weights = lowered.export_detached()
        return Session(
            light,
            self.device,
            threads=self._threads,
            weights=weights,
            profile=profile,
            precision=self._precision,
        )


def _shapes(inputs: Arrays) -> Shapes:
    return tuple((name, value.shape) for name, value in sorted(inputs.items()))
