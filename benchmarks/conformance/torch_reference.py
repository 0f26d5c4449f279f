"""A PyTorch network as reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.conformance.networks import build
from benchmarks.conformance.reference import LARGE, SAME, Place
from tests.oracles import torch_gradients
from tests.oracles.onnx_gradients import INPUT, OUTPUT
from tests.oracles.passes import BATCH, Array, Gradients, Kink, picture_by_picture
from tests.oracles.torch_export import quiet

_THREADS = 2


class TorchReference:
    """A member of `networks`; see `Reference`."""

    spatial_axes = (2, 3)
    kinks = frozenset({"relu", "clip", "leaky", "hard", "max"})
    of: str | None = OUTPUT

    def __init__(self, member: str) -> None:
        self._member = member
        self.module, self.shape = _built(member)
        self.scores = self._shape_of_scores(self.module, torch.float32)

    @functools.cached_property
    def _double(self) -> nn.Module:
        """In float64; made when asked for, since the sharp check wants the memory.

        Built anew: what the other has computed once and keeps, it keeps in float32.
        """
        net = _built(self._member)[0].double()
        self._shape_of_scores(net, torch.float64)
        return net

    def _shape_of_scores(self, net: nn.Module, dtype: torch.dtype) -> tuple[int, ...]:
        """Also the first run, in which a network computes what it keeps."""
        with torch.no_grad():
            return tuple(net(torch.zeros(BATCH, *self.shape, dtype=dtype)).shape)

    def export(self, path: Path) -> None:
        """Of a free batch where the exporter can, else of two."""
        if not path.exists():
            batch = {0: torch.export.Dim("batch", min=1)}
            with quiet():
                try:
                    program = self._export(dynamic_shapes=(batch,))
                except Exception:  # a size in the network's own code that depends on the batch
                    program = self._export()
                program.save(str(path), external_data=False)

    def _export(self, **options: object) -> torch.onnx.ONNXProgram:
        program = torch.onnx.export(
            self.module,
            (torch.zeros(BATCH, *self.shape),),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            **options,
        )
        assert program is not None
        return program

    def locate(self, images: Array, values: Array) -> Place:
        """The number of the functional call."""
        found = torch_gradients.call_computing(self.module, images, values)
        return found[0] if found is not None and found[1] <= SAME else None

    def gradients(
        self,
        images: Array,
        ct: Array,
        place: Place,
        *,
        double: bool,
        rule: str = "gradient",
        replay: Sequence[Kink] | None = None,
    ) -> Gradients:
        """Autograd's; large pictures go one by one."""
        net = self._double if double else self.module

        def one_pass(
            images: Array, ct: Array, replay: Sequence[Kink] | None, first: int = 0
        ) -> Gradients:
            return torch_gradients.gradients(net, place, images, ct, rule, replay, first)

        if max(self.shape) < LARGE:
            return one_pass(images, ct, replay)
        return picture_by_picture(one_pass, images, ct, replay)


def _built(member: str) -> tuple[nn.Module, tuple[int, ...]]:
    """As `build`, on one thread: the weights' statistics must not depend on the machine."""
    torch.set_num_threads(1)
    with quiet():
        built = build(member)
    torch.set_num_threads(_THREADS)
    return built
