"""Loops over the first axis: write one as ONNX's Scan, and carry cotangents back through it.

The backward of a Scan is two of them: the forward once more, which keeps every state, and one over
these from the last step to the first, whose body is the step differentiated. Their size does not
depend on the number of steps. Both run forwards over reversed data, since ONNX's reference
evaluator knows no directions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from graph_rewrites.activity import active_tensors
from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node, renamed
from graph_rewrites.order import topological
from graph_rewrites.tensor_type import TensorType

if TYPE_CHECKING:
    from graph_rewrites.reverse import Sweep

_FIRST = -(2**63) + 1  # the end of a Slice that goes down to the first element


@dataclass(frozen=True)
class State:
    """What a step hands on to the next.

    Attributes:
        start: its first value, a tensor outside.
        before: what the body calls it as the step finds it.
        after: and as the step leaves it.
    """

    start: str
    before: str
    after: str


def reverse(op: Emitter, tensor: str) -> str:
    """`tensor` with its first axis backwards; what was reversed before is read from there."""
    bounds = [op.constant(value, np.int64) for value in ([-1], [_FIRST], [0], [-1])]
    before = op.graph.producer(tensor)
    if before is not None and before.op_type == "Slice" and list(before.inputs[1:]) == bounds:
        return before.input(0)
    return str(op.Slice(tensor, *bounds))


def zeros_like(op: Emitter, tensor: str) -> str:
    """Zeros of the shape of `tensor`."""
    return str(op.Expand(0.0, op.Shape(tensor)))


def scan(
    op: Emitter,
    body: Graph,
    states: Sequence[State],
    slices: Mapping[str, str],
    collected: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Write a Scan whose step is what of `body` the last states and `collected` need.

    Args:
        op: writes it; nodes of the body read its tensors by name.
        body: the step; its names must be new to `op`'s graph.
        states: what goes from step to step.
        slices: for names that the body reads the tensors (T, ...) of which each step gets a row.
        collected: tensors of the body.

    Returns:
        The last states; the `collected` ones of all steps, each (T, ...).
    """
    scope = op.fresh("Scan")
    publish = Emitter(body, f"{scope}/result")
    results = [publish.Identity(x) for x in (*(state.after for state in states), *collected)]
    nodes, read = _needed(body, results)
    sliced = {name: tensor for name, tensor in slices.items() if name in read}
    bound = [*(state.before for state in states), *sliced]
    nodes, names = _hoisted(op, body, nodes, set(bound))
    read = {name for node in nodes for name in node.input}
    values = {name: body.constant(name) for name in sorted(read & body.initializers.keys())}
    names.update({name: f"{scope}/{name}" for name in values})  # outside, these are other tensors
    untyped = onnx.helper.make_empty_tensor_value_info
    step = onnx.helper.make_graph(
        [renamed(node, names) for node in nodes],
        "step",
        [untyped(name) for name in bound],
        [untyped(name) for name in results],
        [onnx.numpy_helper.from_array(np.asarray(v), names[x]) for x, v in values.items()],
    )
    written = op.Scan(
        *(state.start for state in states),
        *sliced.values(),
        body=step,
        num_scan_inputs=len(sliced),
        outputs=len(results),
    )
    ends = list(written) if len(results) > 1 else [written]
    return ends[: len(states)], ends[len(states) :]


def _hoisted(
    op: Emitter, body: Graph, nodes: Sequence[onnx.NodeProto], bound: Collection[str]
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """The nodes that hang on what is `bound` to a step.

    The others are written in front of the loop, where their results have the names returned.
    """
    moving, kept, names = set(bound), list[onnx.NodeProto](), dict[str, str]()
    for node in nodes:
        if moving.intersection(node.input):
            kept.append(node)
            moving.update(node.output)
            continue
        values = {name: body.constant(name) for name in node.input if name in body.initializers}
        constants = {name: op.constant(v, np.asarray(v).dtype) for name, v in values.items()}
        copied = op.copy(renamed(node, {**names, **constants}))
        names.update(zip(node.output, copied, strict=True))
    return kept, names


def _needed(body: Graph, results: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that compute `results`, in order, and all that is read."""
    read, nodes = set(results), []
    for node in reversed(topological(body.nodes)):
        if read.intersection(node.outputs):
            read.update((*node.inputs, *node.captures))
            nodes.append(node.to_proto())
    return nodes[::-1], read


def scan_vjp(
    sweep: Sweep, live: Collection[str], op: Emitter, node: Node, cts: Sequence[str | None]
) -> list[str | None]:
    """The cotangents of a Scan that `scan` wrote: of its inputs, then of what its body captures.

    Args:
        sweep: whose rules differentiate the step.
        live: the tensors outside whose cotangents are wanted.
        op: writes the nodes.
        node: the Scan.
        cts: of its results.
    """
    loop = _Loop.of(node)
    step = loop.opened()
    ends, of_rows = cts[: len(loop.states)], cts[len(loop.states) :]
    asked = {y: ct for y, ct in zip(loop.collected, of_rows, strict=True) if ct}
    seeds: dict[str, str] = {}
    for y in (*(state.after for state in loop.states), *asked):
        seed = TensorType(onnx.TensorProto.FLOAT, step.shape(y))
        seeds[y] = step.add_input(f"{y}/ct", seed)
    wanted = {state.before for state in loop.states}
    wanted.update(x for x, tensor in loop.rows.items() if tensor in live)
    wanted.update(x for x in node.captures if x in live)
    active = active_tensors(step, topological(step.nodes), wanted, seeds, sweep.rules)
    inner = replace(sweep, graph=step, relu="gradient", other_activations="gradient", rows=None)
    gradients = inner.pull_back(seeds, {x: x for x in sorted(wanted & active)})

    back = [
        State(ct or zeros_like(op, state.start), seeds[state.after], gradients[state.before])
        for state, ct in zip(loop.states, ends, strict=True)
    ]
    inside = Emitter(step, f"{op.fresh('Scan')}/step")
    captured = [x for x in node.captures if x in gradients]
    for x in captured:  # their cotangent is the sum over all steps
        total = step.add_input(inside.fresh("total"), step.type(x))
        back.append(State(zeros_like(op, x), total, inside.Add(total, gradients[x])))
    rows = [x for x in loop.rows if x in gradients]
    _, read = _needed(step, [*(state.after for state in back), *(gradients[x] for x in rows)])
    slices = {
        **loop.rows,
        **loop.states_before(op, [s.before for s in loop.states if s.before in read]),
        **{seeds[y]: ct for y, ct in asked.items()},
    }
    slices = {x: reverse(op, tensor) for x, tensor in slices.items() if x in read}
    firsts, found = scan(op, step, back, slices, [gradients[x] for x in rows])
    sums = dict(zip(captured, firsts[len(loop.states) :], strict=True))
    found_rows = {x: reverse(op, ct) for x, ct in zip(rows, found, strict=True)}
    return [
        *firsts[: len(loop.states)],
        *(found_rows.get(x) for x in loop.rows),
        *(sums.get(x) for x in node.captures),
    ]


@dataclass(frozen=True)
class _Loop:
    """A Scan that `scan` wrote, taken apart.

    Attributes:
        node: the Scan.
        states: what goes from step to step.
        rows: for names of the body the tensors outside of which each step gets a row.
        collected: the results of each step that are collected.
    """

    node: Node
    states: Sequence[State]
    rows: Mapping[str, str]
    collected: Sequence[str]

    @classmethod
    def of(cls, node: Node) -> _Loop:
        body, count = node.attr("body"), len(node.inputs) - node.attr("num_scan_inputs")
        reads, results = ([value.name for value in values] for values in (body.input, body.output))
        triples = zip(node.inputs[:count], reads[:count], results[:count], strict=True)
        states = [State(start, before, after) for start, before, after in triples]
        rows = dict(zip(reads[count:], node.inputs[count:], strict=True))
        return cls(node, states, rows, results[count:])

    def opened(self) -> Graph:
        """The body as a graph of its own, with types; what it captures becomes an input."""
        outside, body = self.node.graph, self.node.attr("body")
        types = {state.before: outside.type(state.start) for state in self.states}
        for x, tensor in self.rows.items():
            known = outside.type(tensor)
            types[x] = TensorType(known.elem_type, known.shape and known.shape[1:])
        types.update({x: outside.type(x) for x in self.node.captures})
        inputs = [type_.declare(x) for x, type_ in types.items()]
        graph = onnx.helper.make_graph(body.node, "step", inputs, body.output, body.initializer)
        opsets = [onnx.helper.make_opsetid("", self.node.opset)]
        return Graph(onnx.helper.make_model(graph, opset_imports=opsets))

    def states_before(self, op: Emitter, befores: Sequence[str]) -> dict[str, str]:
        """These states in front of every step, (T, ...), from the forward once more."""
        if not befores:
            return {}
        _, collected = scan(op, self.opened(), self.states, self.rows, befores)
        return dict(zip(befores, collected, strict=True))
