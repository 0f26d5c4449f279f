"""Unroll LSTM, GRU and RNN into plain operators, one step of the sequence after another.

Canonical form keeps these operators, since the runtime has a kernel for each, and brings them to
layout 0; what is unrolled is only the copy that is differentiated (`graph_rewrites.expansion`).
Notation and order of the gates are ONNX's: X is (T, N, I), W (D, G·H, I), R (D, G·H, H),
B (D, 2·G·H) and P (D, 3·H), with D directions and G gates. A state of None is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import MappingProxyType

import numpy as np

from graph_rewrites.canonical.decompose import Table
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import UnknownShapeError, UnsupportedOperatorError
from graph_rewrites.node import Node
from graph_rewrites.shapes import static_dims

Activation = Callable[[str], str]
State = str | None
Step = Callable[[str, State, State], tuple[str, State]]
"""What X adds to the gates (N, G·H), the states h and c (N, H) -> the next h and c."""
Cell = Callable[[Emitter, Node, int, Sequence[Activation]], Step]
"""Emitter, node, direction, activations -> its step."""


BATCH_AXES = {0: 1, 4: 0, 5: 1, 6: 1}
"""By position of an input the axis of its batch: X, the lengths, the first h and c."""


def _rnn(op: Emitter, node: Node, d: int, activations: Sequence[Activation]) -> Step:
    r = _recurrence(op, node, d)

    def step(gates: str, h: State, c: State) -> tuple[str, State]:
        return activations[0](_plus(op, gates, h, r)), c

    return step


def _gru(op: Emitter, node: Node, d: int, activations: Sequence[Activation]) -> Step:
    """Gates z, r, h."""
    f, g = activations
    size = static_dims(op.graph, node.input(2), [2])[0]
    r_gates, r_hidden = op.Split(_recurrence(op, node, d), [2 * size, size], axis=1, outputs=2)
    linear = node.attr("linear_before_reset", 0)
    bias = _row(op, node.input(3), d, 5 * size, 6 * size) if linear else None

    def step(gates: str, h: State, c: State) -> tuple[str, State]:
        x_gates, hidden = op.Split(gates, [2 * size, size], axis=-1, outputs=2)
        z, r = op.Split(f(_plus(op, x_gates, h, r_gates)), num_outputs=2, axis=-1, outputs=2)
        if linear:
            terms = [*([op.MatMul(h, r_hidden)] if h else []), *([bias] if bias else [])]
            hidden = op.Add(hidden, op.Mul(r, op.Sum(*terms))) if terms else hidden
        elif h:
            hidden = _plus(op, hidden, op.Mul(r, h), r_hidden)
        new = op.Mul(op.Sub(1.0, z), g(hidden))
        return str(op.Add(new, op.Mul(z, h)) if h else new), c

    return step


def _lstm(op: Emitter, node: Node, d: int, activations: Sequence[Activation]) -> Step:
    """Gates i, o, f, c."""
    f, g, h_ = activations
    r, coupled = _recurrence(op, node, d), node.attr("input_forget", 0)
    size = static_dims(op.graph, node.input(2), [2])[0]
    p_i, p_o, p_f = (_row(op, node.input(7), d, i * size, (i + 1) * size) for i in range(3))

    def peeped(gate: str, peephole: State, c: State) -> str:
        """The activated gate; without peepholes it was activated with the others."""
        if peephole is None:
            return gate
        return f(op.Add(gate, op.Mul(peephole, c)) if c else gate)

    def step(gates: str, h: State, c: State) -> tuple[str, State]:
        first, new = op.Split(_plus(op, gates, h, r), [3 * size, size], axis=-1, outputs=2)
        i, o, forget = op.Split(
            f(first) if p_i is None else first, num_outputs=3, axis=-1, outputs=3
        )
        i = peeped(i, p_i, c)
        new = op.Mul(i, g(new))
        if c:
            kept = op.Sub(1.0, i) if coupled else peeped(forget, p_f, c)
            new = op.Add(op.Mul(kept, c), new)
        return str(op.Mul(peeped(o, p_o, new), h_(new))), new

    return step


def _plus(op: Emitter, gates: str, h: State, r: str) -> str:
    """The gates with what the last state adds to them."""
    return gates if h is None else str(op.Add(gates, op.MatMul(h, r)))


def _recurrence(op: Emitter, node: Node, d: int) -> str:
    """R of one direction, (H, G·H)."""
    return str(op.Transpose(_of(op, node.input(2), d), perm=[1, 0]))


def _of(op: Emitter, tensor: str, d: int) -> str:
    """`tensor` of the direction d, without that axis."""
    return str(op.Gather(tensor, op.constant(d, np.int64), axis=0))


def _row(op: Emitter, tensor: str, d: int, start: int, end: int) -> State:
    """Entries of the vector of one direction; None where it is omitted."""
    return str(op.Slice(_of(op, tensor, d), [start], [end], [0])) if tensor else None


def _unroll(op: Emitter, node: Node, cell: Cell, defaults: Sequence[str]) -> Sequence[str]:
    directions = {"reverse": (True,), "bidirectional": (False, True)}
    backward = directions.get(node.attr("direction", "forward"), (False,))
    activations = iter(list(_activations(op, node, list(defaults) * len(backward))))
    results = []
    for d, reverse in enumerate(backward):
        step = cell(op, node, d, list(islice(activations, len(defaults))))
        results.append(_run(op, node, d, step, reverse))
    y, *states = zip(*results, strict=True)
    joined = [op.Concat(*(op.Unsqueeze(s, [0]) for s in state), axis=0) for state in states]
    return [op.Concat(*y, axis=1), *joined][: 3 if cell is _lstm else 2]


def _run(op: Emitter, node: Node, d: int, step: Step, reverse: bool) -> tuple[str, str, str]:
    """Y (T, 1, N, H) of one direction, and its last states."""
    inputs = _inputs(op, node, d)
    lengths = node.input(4)
    h, c = (_of(op, node.input(i), d) if node.input(i) else None for i in (5, 6))
    outputs = {}
    for t in sorted(range(len(inputs)), reverse=reverse):
        y, memory = step(inputs[t], h, c)
        if lengths:
            inside = op.Unsqueeze(op.Less(op.constant(t, np.int32), lengths), [1])
            h, c = (
                op.Where(inside, new, old or 0.0) if new else None
                for new, old in ((y, h), (memory, c))
            )
            y = op.Where(inside, y, 0.0)
        else:
            h, c = y, memory
        outputs[t] = op.Unsqueeze(y, [0, 1])
    assert h is not None
    return op.Concat(*(outputs[t] for t in sorted(outputs)), axis=0), h, c or h


def _inputs(op: Emitter, node: Node, d: int) -> list[str]:
    """What X and the biases add to the gates, (N, G·H) for every step."""
    x, w, r, bias = (node.input(i) for i in range(4))
    length = op.graph.known_shape(x)[0]
    if not isinstance(length, int):
        raise UnknownShapeError(
            f"{node} cannot be unrolled for its gradient, because the length of its sequence is "
            "not fixed; export the model with a fixed height and width, or explain a later tensor"
        )
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
    if length == 1:
        return [op.Squeeze(gates, [0])]
    steps = op.Split(gates, num_outputs=length, axis=0, outputs=length)
    return [op.Squeeze(step, [0]) for step in steps]


_PARAMETERS: dict[str, tuple[float | None, ...]] = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "Softsign": (), "Softplus": (),
    "LeakyRelu": (0.01,), "ThresholdedRelu": (None,), "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5), "Affine": (None, None), "ScaledTanh": (None, None),
}  # fmt: skip
"""The activations that ONNX knows here; alpha and beta by default, None where runtimes disagree."""


def _activations(op: Emitter, node: Node, defaults: list[str]) -> Iterator[Activation]:
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
        yield _activation(op, name, values, None if of_a_state else node.attr("clip"))


def _activation(
    op: Emitter, name: str, values: Sequence[float | None], clip: float | None
) -> Activation:
    def emit(x: str) -> str:
        if clip is not None:
            x = op.Clip(x, -clip, clip)
        if name == "Affine":
            return str(op.Add(op.Mul(x, values[0]), values[1]))
        if name == "ScaledTanh":
            return str(op.Mul(op.Tanh(op.Mul(x, values[1])), values[0]))
        attributes = dict(zip(("alpha", "beta"), values, strict=False))
        return str(getattr(op, name)(x, **attributes))

    return emit


UNROLLED: Table = MappingProxyType(
    {
        ("", "RNN"): lambda op, node: _unroll(op, node, _rnn, ["Tanh"]),
        ("", "GRU"): lambda op, node: _unroll(op, node, _gru, ["Sigmoid", "Tanh"]),
        ("", "LSTM"): lambda op, node: _unroll(op, node, _lstm, ["Sigmoid", "Tanh", "Tanh"]),
    }
)
"""What unrolls each of them."""


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


TIME_FIRST: Table = MappingProxyType(dict.fromkeys(UNROLLED, _time_first))
"""What brings each of them to layout 0."""
