"""An explanation model in the runtime, in the fastest form for the shapes that it runs on."""

import logging
import math
import os
import statistics
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Final, Literal

import numpy.typing as npt
import onnx

from analyzer.errors import AnalyzerError
from analyzer.session import BATCH_SIZE, Arrays, NodeTime, Precision, Session
from analyzer.weights import is_mostly_dense
from graph_rewrites.errors import GraphRewriteError
from graph_rewrites.lowering import lowered_graph

_KEPT: Final = 2
_DENSE: Final = 4
_PICTURE: Final = 3 * 224 * 224  # numbers in one of usual size
_AT_ONCE: Final = 16 * _PICTURE  # numbers: what is computed of them has to fit into memory
_log = logging.getLogger(__name__)

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class SpecializedSession:
    """A model opened once for each set of input shapes; the least recently used make room.

    The runtime stays in its fast layout only where it can prove that shapes are equal, so that a
    session is for one batch size and one picture size; and for one number of threads.

    Attributes:
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        device: Literal["cpu", "cuda"],
        threads: int | None = None,
        precision: Precision = "float32",
        at_once: int | None = None,
    ) -> None:
        """Keep the model; nothing is opened before the first run.

        Args:
            model: The explanation model.
            device: Where it runs.
            threads: At work at a time; None takes all that there are.
            precision: See `Session`.
            at_once: The most images at a time; None lets threads and memory decide.
        """
        self._model, self._precision = model, precision
        self._threads, self._at_once = threads, at_once
        self.device: Literal["cpu", "cuda"] = device
        self._failure = ""
        self._kept: OrderedDict[tuple[Shapes, int | None], Session] = OrderedDict()

    def run(
        self, inputs: Arrays, outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on inputs of any shapes; see `Session.run`.

        Should the lowered model not run, which is a defect of ours, the portable one does, and says
        so in a log message and in `settings`.
        """
        if not self._failure:
            try:
                return self._session(inputs, self._threads).run(inputs, outputs)
            except (AnalyzerError, GraphRewriteError, ValueError) as error:
                failure = error
            found = self._portable.run(inputs, outputs)  # or it says what is wrong with the inputs
            self._failure = " ".join(str(failure).split())
            self._kept.clear()
            _log.warning("the portable model runs in place of the lowered one: %s", self._failure)
            return found
        return self._portable.run(inputs, outputs)

    def run_size(self, picture: Sequence[int], size: int | None) -> int:
        """How many images one run takes: on CUDA 8, on a CPU as many as make one picture of 224².

        On a CPU the backward pass reads the forward's activations again, and those of larger runs
        have left the caches: eight pictures in one run take, for the gradient of MobileNetV2, 1.4
        times what they take one by one. Side by side (`run_each`) they take less still. Nor does a
        map of a picture of that size depend then on what else was asked for.

        Where dense layers hold most of the weights, a run reads hundreds of megabytes, and four
        times as many images share it: Grad-CAM of an AlexNet takes 0.7 of the time. The last bits
        of a map may then depend on the others in its run.

        Args:
            picture: The shape of one.
            size: The most that are wanted at a time; None leaves the choice to us.
        """
        if self.device == "cuda":
            return size or BATCH_SIZE
        pictures = _DENSE if self._is_mostly_dense else 1
        usual = min(max(pictures * _PICTURE // max(math.prod(picture), 1), 1), BATCH_SIZE)
        return min(usual, size or usual)

    def run_each(self, batches: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """Run the model on batches of one shape; on a CPU many of them side by side.

        Threads that share a run wait for each other at every node; threads with a run each do not,
        and each keeps what it works on in its core's cache. Eight pictures of 224² take, on two
        cores, a tenth less time than one by one. What is computed is the same to the last bit.

        Raises:
            AnalyzerError: See `Session.run`.
        """
        together, threads = self._shared_out(batches[0])
        if 1 < together <= len(batches) and not self._failure:
            try:
                session = self._session(batches[0], threads)
                with ThreadPoolExecutor(together) as pool:
                    return list(pool.map(session.run, batches))
            except (AnalyzerError, GraphRewriteError, ValueError) as error:
                _log.info("one run at a time, because several failed: %s", error)
        return [self.run(inputs) for inputs in batches]

    def _shared_out(self, inputs: Arrays) -> tuple[int, int]:
        """How many runs there may be at once, and the threads of the session that has them.

        Each run brings a thread of its own; what is left works for all of them.
        """
        if self.device == "cuda":
            return 1, 1
        threads = self._threads or _cores()
        images = len(next(iter(inputs.values())))
        numbers = max(value.size for value in inputs.values())
        most = max((self._at_once or threads * images) // images, 1)
        together = min(threads, most, max(_AT_ONCE // numbers, 1))
        return together, threads - together + 1

    @property
    def settings(self) -> Mapping[str, object]:
        """What ran the last inputs: see `Session`, and the lowering."""
        if self._failure:
            return {**self._portable.settings, "lowered": f"no: {self._failure}"}
        last = next(reversed(self._kept.values()))
        half = {"float16": True} if self._precision == "float16" else {}
        return {**last.settings, "lowered": self.device, **half}

    @cached_property
    def _is_mostly_dense(self) -> bool:
        return is_mostly_dense(self._model)

    @cached_property
    def _portable(self) -> Session:
        return Session(self._model, self.device, threads=self._threads, precision=self._precision)

    def profile(self, inputs: Arrays, runs: int = 7) -> tuple[list[NodeTime], float]:
        """What every node took, and one run as a whole: medians over `runs`, in seconds."""
        session = self._open(_shapes(inputs), self._threads, profile=True)
        seconds = []
        for _ in range(runs):
            begun = time.perf_counter()
            session.run(inputs)
            seconds.append(time.perf_counter() - begun)
        return session.node_times(), statistics.median(seconds)

    def _session(self, inputs: Arrays, threads: int | None) -> Session:
        shapes = _shapes(inputs)
        key = shapes, threads
        if key not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = self._open(shapes, threads)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _open(self, shapes: Shapes, threads: int | None, *, profile: bool = False) -> Session:
        half = self._precision == "float16"
        graph = lowered_graph(self._model, self.device, dict(shapes), float16=half)
        light, weights = graph.export_detached()
        del graph  # and the weights that it has read, before the session reads them
        return Session(
            light,
            self.device,
            threads=threads,
            weights=weights,
            profile=profile,
            precision=self._precision,
        )


def _shapes(inputs: Arrays) -> Shapes:
    return tuple((name, value.shape) for name, value in sorted(inputs.items()))


def _cores() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1
