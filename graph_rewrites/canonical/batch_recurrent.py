"""Where the batch axis goes through RNN, GRU and LSTM.

Exporters write the initial state of a network that was given none as a constant of zeros for the
batch at hand; left out it means the same for any batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graph_rewrites.canonical.batch_axes import Axes, AxisRule, NotFreeError, mixes
from graph_rewrites.canonical.batch_shapes import ShapeEdit
from graph_rewrites.node import Node

if TYPE_CHECKING:
    from graph_rewrites.canonical.batch import Tracker

_LENGTHS, _STATES = 4, (5, 6)
_WEIGHTS = (1, 2, 3, 7)


def _recurrent(tracker: Tracker, node: Node) -> Axes:
    """X (T, N, C) or, with layout 1, (N, T, C); states (D, N, H) or (N, D, H)."""
    first = node.attr("layout", 0) == 1
    batch = 0 if first else 1
    if tracker.axis(node.input(0)) != batch or node.input(_LENGTHS):
        raise mixes(node)
    if any(node.input(at) and tracker.axis(node.input(at)) is not None for at in _WEIGHTS):
        raise mixes(node)
    for at in _STATES:
        state = node.input(at)
        if state and tracker.axis(state) is None:
            value = node.constant(state)
            if value is None or value.any():
                raise NotFreeError(f"the initial state {state!r} of {node} has a batch of its own")
            tracker.edit(ShapeEdit(node, at, None))
        elif state and tracker.axis(state) != batch:
            raise mixes(node)
    return [0 if first else 2, batch, batch]


RECURRENT_RULES: dict[str, AxisRule] = dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent)
"""The rules of the recurrent operators."""
