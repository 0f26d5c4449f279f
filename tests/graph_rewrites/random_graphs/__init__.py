"""Random networks: what hypothesis draws, operator by operator, for `test_random_graphs.py`.

A network begins with the input `x`, a batch of pictures, grows by 3 to 12 steps, each of them one
operator of the rule table with what it needs around it to stay in its domain, and ends where all
that nobody read is flattened and put side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from . import layout, sums, values, windows
from .draft import Draft, Tensor, collect

STEPS = collect(values, windows, layout, sums)
SIZES = ((3, 6, 6), (2, 5, 7), (4, 4, 4), (1, 7, 5), (8, 6))
OPSETS = (9, 11, 13, 17, 18, 19, 20, 20, 21, 21, 23, 24)


@dataclass(frozen=True)
class Network:
    """A drawn model with its picture.

    Attributes:
        model: input `x` and output `y`; `y` depends on `x`.
        x: a value of the input.
        inner: a tensor between both.
    """

    model: onnx.ModelProto
    x: np.ndarray
    inner: str

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        text = onnx.printer.to_text(self.model)
        printer.text(f"<x {self.x.shape}, inner {self.inner}\n{text}>")


@st.composite
def networks(draw: st.DrawFn, least: int = 3, most: int = 12) -> Network:
    """Networks of `least` to `most` steps, each of which has a seed of its own."""
    seeds = st.integers(0, 2**32 - 1)
    chosen = draw(st.lists(seeds, min_size=least + 1, max_size=most + 1))
    return network(chosen, draw(st.sampled_from(OPSETS)))


def network(seeds: Sequence[int], opset: int) -> Network:
    """The network of one step per seed, but for the first, which decides about the picture."""
    draft = Draft(opset)
    draft.seed(seeds[0])
    dims = draft.pick(SIZES)
    batch, free = draft.integer(1, 3), draft.chance()
    draft.pool.append(Tensor("x", dims))
    for seed in seeds[1:]:
        draft.seed(seed)
        x = draft.near()
        step = draft.pick([step for step in STEPS if step.fits(draft, x)])
        draft.pool += step.grow(draft, step.op, x)
    _end(draft)
    x = np.random.default_rng(batch).standard_normal((batch, *dims)).astype(np.float32)
    return Network(_model(draft, "N" if free else batch), x, draft.pick(_between(draft)))


def _end(draft: Draft) -> None:
    """`y`: everything that no step has read, as one row per image."""
    read = {name for node in draft.nodes for name in node.input}
    loose = [t for t in draft.pool if t.name not in read]
    rows = [draft.node("Flatten", t, axis=1) for t in loose]
    y = draft.node("Concat", *rows, axis=1)
    if draft.chance():
        y = draft.node("Gemm", y, draft.weight(sum(t.size for t in loose), 5), draft.weight(5))
    draft.nodes[-1].output[0] = "y"


def _model(draft: Draft, batch: int | str) -> onnx.ModelProto:
    used = {name for node in draft.nodes for name in node.input}
    graph = helper.make_graph(
        draft.nodes,
        "drawn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *draft.pool[0].dims])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, "rows"])],
        [
            numpy_helper.from_array(value, name)
            for name, value in draft.weights.items()
            if name in used
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", draft.opset)], ir_version=8
    )


def _between(draft: Draft) -> list[str]:
    """The tensors of the pool that `y` depends on, but for those that canonical form drops."""
    writer: Mapping[str, onnx.NodeProto] = {o: n for n in draft.nodes for o in n.output}
    seen, waiting = set(), ["y"]
    while waiting:
        name = waiting.pop()
        if name in writer and name not in seen:
            waiting.extend(writer[name].input)
        seen.add(name)
    kept = (t.name for t in draft.pool if t.name in seen)
    return [n for n in kept if n == "x" or writer[n].op_type not in ("Dropout", "Identity")]
