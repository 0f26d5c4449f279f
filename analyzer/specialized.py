"""An explanation model in the runtime, in the fastest form for the shapes that it runs on."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy.typing as npt
import onnx

from analyzer.session import Arrays, Session
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

    def _session(self, inputs: Arrays) -> Session:
        key = tuple((name, value.shape) for name, value in sorted(inputs.items()))
        if key not in self._kept:
            lowered = lowered_graph(self._model, self.device, dict(key))
            light, weights = lowered.export_detached()
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = Session(light, self.device, threads=self._threads, weights=weights)
        self._kept.move_to_end(key)
        return self._kept[key]
