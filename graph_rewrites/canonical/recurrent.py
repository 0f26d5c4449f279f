"""Write LSTM, GRU and RNN as a Scan over plain operators.

Canonical form keeps these operators, since the runtime has a kernel for each, and brings them to
layout 0; what becomes a Scan is only the copy that is differentiated (`graph_rewrites.expansion`).
Notation and order of the gates are ONNX's: X is (T, N, I), W (D, G·H, I), R (D, G·H, H),
B (D, 2·G·H) and P (D, 3·H), with D directions and G gates. A state that is omitted is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import MappingProxyType

import numpy as np
import onnx

from graph_rewrites.canonical.decompose import Table
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.scans import State, reverse, scan
from graph_rewrites.shapes import static_dims

Activation = Callable[[Emitter, str], str]
States = tuple[str, ...]
Step = Callable[[Emitter, str, States], States]
"""Emitter of the body, what X adds to the gates (N, G·H), states (N, H): h, of an LSTM h and c
-> the next states."""
Cell = Callable[[Emitter, Node, int, Sequence[Activation]], Step]
"""Emitter, node, direction, activations -> its step."""


BATCH_AXES = {0: 1, 4: 0, 5: 1, 6: 1}
"""By position of an input the axis of its batch: X, the lengths, the first h and c."""


def _rnn(op: Emitter, node: Node, d: int, activations: Sequence[Activation]) -> Step:
    r = _recurrence(op, node, d)

    def step(op: Emitter, gates: str, states: States) -> States:
        (h,) = states
        return (activations[0](op, op.Add(gates, op.MatMul(h, r))),)

    return step


def _gru(op: Emitter, node: Node, d: int, activations: Sequence[Activation]) -> Step:
    """Gates z, r, h."""
    f, g = activations
    size = static_dims(op.graph, node.input(2), [2])[0]
    r_gates, r_hidden = op.Split(_recurrence(op, node, d), [2 * size, size], axis=1, outputs=2)
    linear = node.attr("linear_before_reset", 0)
    bias = _row(op, node.input(3), d, 5 * size, 6 * size) if linear else None

    def step(op: Emitter, gates: str, states: States) -> States:
        (h,) = states
        x_gates, hidden = op.Split(gates, [2 * size, size], axis=-1, outputs=2)
        both = f(op, op.Add(x_gates, op.MatMul(h, r_gates)))
        z, r = op.Split(both, num_outputs=2, axis=-1, outputs=2)
        if linear:
            inner = op.MatMul(h, r_hidden)
            hidden = op.Add(hidden, op.Mul(r, op.Add(inner, bias) if bias else inner))
        else:
            hidden = op.Add(hidden, op.MatMul(op.Mul(r, h), r_hidden))
        return (op.Add(op.Mul(op.Sub(1.0, z), g(op, hidden)), op.Mul(z, h)),)

    return step


def _lstm(op: Emitter, node: Node, d: int, activations: Sequence[Activation]) -> Step:
    """Gates i, o, f, c."""
    f, g, h_ = activations
    r, coupled = _recurrence(op, node, d), node.attr("input_forget", 0)
    size = static_dims(op.graph, node.input(2), [2])[0]
    p_i, p_o, p_f = (_row(op, node.input(7), d, i * size, (i + 1) * size) for i in range(3))

    def peeped(op: Emitter, gate: str, peephole: str | None, c: str) -> str:
        """The activated gate; without peepholes it was activated with the others."""
        return gate if peephole is None else f(op, op.Add(gate, op.Mul(peephole, c)))

    def step(op: Emitter, gates: str, states: States) -> States:
        h, c = states
        gates = op.Add(gates, op.MatMul(h, r))
        first, new = op.Split(gates, [3 * size, size], axis=-1, outputs=2)
        first = f(op, first) if p_i is None else first
        i, o, forget = op.Split(first, num_outputs=3, axis=-1, outputs=3)
        i = peeped(op, i, p_i, c)
        kept = op.Sub(1.0, i) if coupled else peeped(op, forget, p_f, c)
        new = op.Add(op.Mul(kept, c), op.Mul(i, g(op, new)))
        return op.Mul(peeped(op, o, p_o, new), h_(op, new)), new

    return step


def _recurrence(op: Emitter, node: Node, d: int) -> str:
    """R of one direction, (H, G·H)."""
    return str(op.Transpose(_of(op, node.input(2), d), perm=[1, 0]))


def _of(op: Emitter, tensor: str, d: int) -> str:
    """`tensor` of the direction d, without that axis."""
    return str(op.Gather(tensor, op.constant(d, np.int64), axis=0))


def _row(op: Emitter, tensor: str, d: int, start: int, end: int) -> str | None:
    """Entries of the vector of one direction; None where it is omitted."""
    return str(op.Slice(_of(op, tensor, d), [start], [end], [0])) if tensor else None


def _scanned(op: Emitter, node: Node, cell: Cell, defaults: Sequence[str]) -> Sequence[str]:
    directions = {"reverse": (True,), "bidirectional": (False, True)}
    backward = directions.get(node.attr("direction", "forward"), (False,))
    activations = iter(list(_activations(node, list(defaults) * len(backward))))
    results = []
    for d, is_reverse in enumerate(backward):
        step = cell(op, node, d, list(islice(activations, len(defaults))))
        results.append(_run(op, node, d, step, is_reverse))
    y, *states = zip(*results, strict=True)
    joined = [op.Concat(*(op.Unsqueeze(s, [0]) for s in state), axis=0) for state in states]
    return [op.Concat(*(op.Unsqueeze(part, [1]) for part in y), axis=1), *joined]


def _run(op: Emitter, node: Node, d: int, step: Step, is_reverse: bool) -> tuple[str, ...]:
    """Y (T, N, H) of one direction, and its last states."""
    gates, lengths = _gates(op, node, d), node.input(4)
    body = _empty(node.opset)
    inside = Emitter(body, f"{op.fresh('Scan')}/{d}")
    befores = [inside.fresh(name) for name in ("h", "c")[: 2 if node.op_type == "LSTM" else 1]]
    row, time = inside.fresh("gates"), inside.fresh("time")
    afters = step(inside, row, tuple(befores))
    y, slices = afters[0], {row: gates}
    if lengths:
        slices[time] = op.Range(
            op.constant(0, np.int64), op.Squeeze(op.Shape(gates, end=1)), op.constant(1, np.int64)
        )
        ends = op.Unsqueeze(op.Cast(lengths, to=onnx.TensorProto.INT64), [1])
        runs = inside.Less(time, ends)
        y = inside.Where(runs, y, 0.0)
        afters = tuple(
            inside.Where(runs, new, old) for new, old in zip(afters, befores, strict=True)
        )
    states = [
        State(_start(op, node, d, i, gates), before, after)
        for i, before, after in zip((5, 6), befores, afters, strict=False)
    ]
    if is_reverse:
        slices = {name: reverse(op, tensor) for name, tensor in slices.items()}
    last, (whole,) = scan(op, body, states, slices, [y])
    return (reverse(op, whole) if is_reverse else whole, *last)


def _empty(opset: int) -> Graph:
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_graph([], "step", [], [])
    return Graph(onnx.helper.make_model(model, opset_imports=opsets))


def _start(op: Emitter, node: Node, d: int, i: int, gates: str) -> str:
    """A state in front of the first step: of one direction, or zero."""
    if node.input(i):
        return _of(op, node.input(i), d)
    size = static_dims(op.graph, node.input(2), [2])
    return str(op.Expand(0.0, op.Concat(op.Shape(gates, start=1, end=2), size, axis=0)))


def _gates(op: Emitter, node: Node, d: int) -> str:
    """What X and the biases add to the gates, (T, N, G·H)."""
    x, w, r, bias = (node.input(i) for i in range(4))
    gates = op.MatMul(x, op.Transpose(_of(op, w, d), perm=[1, 0]))
    width, size = static_dims(op.graph, r, [1, 2])
    if bias:
        gates = op.Add(gates, _row(op, bias, d, 0, width))
        recurred = _row(op, bias, d, width, 2 * width)
        if node.attr("linear_before_reset", 0):  # the hidden gate's is added inside
            mask = np.ones(width, np.float32)
            mask[2 * size :] = 0.0
            recurred = op.Mul(recurred, mask)
        gates = op.Add(gates, recurred)
    return str(gates)


_PARAMETERS: dict[str, tuple[float | None, ...]] = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "Softsign": (), "Softplus": (),
    "LeakyRelu": (0.01,), "ThresholdedRelu": (None,), "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5), "Affine": (None, None), "ScaledTanh": (None, None),
}  # fmt: skip
"""The activations that ONNX knows here; alpha and beta by default, None where runtimes disagree."""


def _activations(node: Node, defaults: list[str]) -> Iterator[Activation]:
    """The activations of all directions; the lists of parameters are used up from the left."""
    known = {name.lower(): name for name in _PARAMETERS}
    given = [iter(node.attr(f"activation_{name}", [])) for name in ("alpha", "beta")]
    listed = [name.decode() for name in node.attr("activations", [])] or defaults
    for place, raw in enumerate(listed):
        name = known.get(raw.lower())
        if name is None:
            raise UnsupportedOperatorError(
                f"{node} has the activation {raw!r}, which ONNX does not define; "
                f"use one of {', '.join(_PARAMETERS)}"
            )
        values = [next(v, default) for v, default in zip(given, _PARAMETERS[name], strict=False)]
        if None in values:
            raise UnsupportedOperatorError(
                f"{node} has the activation {name!r} without its parameters, on whose defaults "
                "runtimes disagree; write activation_alpha and activation_beta into the node"
            )
        of_a_state = node.op_type == "LSTM" and place % 3 == 2  # the runtime never clips those
        yield _activation(name, values, None if of_a_state else node.attr("clip"))


def _activation(name: str, values: Sequence[float | None], clip: float | None) -> Activation:
    def emit(op: Emitter, x: str) -> str:
        if clip is not None:
            x = op.Clip(x, -clip, clip)
        if name == "Affine":
            return str(op.Add(op.Mul(x, values[0]), values[1]))
        if name == "ScaledTanh":
            return str(op.Mul(op.Tanh(op.Mul(x, values[1])), values[0]))
        attributes = dict(zip(("alpha", "beta"), values, strict=False))
        return str(getattr(op, name)(x, **attributes))

    return emit


SCANS: Table = MappingProxyType(
    {
        ("", "RNN"): lambda op, node: _scanned(op, node, _rnn, ["Tanh"]),
        ("", "GRU"): lambda op, node: _scanned(op, node, _gru, ["Sigmoid", "Tanh"]),
        ("", "LSTM"): lambda op, node: _scanned(op, node, _lstm, ["Sigmoid", "Tanh", "Tanh"]),
    }
)
"""What writes each of them as a Scan."""


def _time_first(op: Emitter, node: Node) -> Sequence[str] | None:
    """Layout 1, with the batch in front of everything, by layout 0: the runtime has only that."""
    if not node.attr("layout", 0):
        return None
    swapped = [1, 0, 2]
    inputs = [
        op.Transpose(name, perm=swapped) if name and i in (0, 5, 6) else name or None
        for i, name in enumerate(node.inputs)
    ]
    attributes = {name: node.attr(name) for name in node.attributes if name != "layout"}
    count = len(node.outputs)
    results = getattr(op, node.op_type)(*inputs, outputs=count, **attributes)
    y, *states = results if count > 1 else [results]
    return [op.Transpose(y, perm=[2, 0, 1, 3]), *(op.Transpose(s, perm=swapped) for s in states)]


TIME_FIRST: Table = MappingProxyType(dict.fromkeys(SCANS, _time_first))
"""What brings each of them to layout 0."""
