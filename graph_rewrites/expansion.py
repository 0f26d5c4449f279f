"""Rules of operators that have none: expand the operator into its body and differentiate that.

The bodies are ONNX's own function bodies and the recurrent operators written as a Scan. The
forward graph keeps the operator, so that reports, layers and the runtime know it as before; its
body is computed once more, by backward nodes stamped with the operator that they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import onnx
import onnx.numpy_helper

from graph_rewrites.activity import active_tensors
from graph_rewrites.canonical import open_canonical
from graph_rewrites.canonical.decompose import decompose
from graph_rewrites.canonical.functions import expand_operators, has_body
from graph_rewrites.canonical.recurrent import BATCH_AXES, SCANS
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import (
    MissingRuleError,
    ModelError,
    UnsupportedControlFlowError,
    UnsupportedOperatorError,
)
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import ACTIVATIONS
from graph_rewrites.node import Node, renamed
from graph_rewrites.order import topological
from graph_rewrites.rules.table import Cotangents, Rule
from graph_rewrites.scans import scan_vjp
from graph_rewrites.tensor_type import TensorType

if TYPE_CHECKING:
    from graph_rewrites.reverse import Sweep


def expands(op_type: str, opset: int) -> bool:
    """Whether an operator of the default domain has a body that `expansion` can differentiate."""
    return ("", op_type) in SCANS or has_body(op_type, opset)


def expansion(sweep: Sweep, node: Node) -> Rule | None:
    """The rule of `node` by its body, whose nodes get the rules of `sweep`; None without a body.

    ReLUs inside the body are parts of a formula: they pass their gradient.
    """
    if node.domain or not expands(node.op_type, node.opset):
        return None

    def expanded_vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
        return _differentiated(sweep, op, node, cts)

    return Rule(node.op_type, expanded_vjp, activation=node.op_type in ACTIVATIONS)


def _differentiated(sweep: Sweep, op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
    """Differentiate the body in a graph of its own, and move what that graph holds into `op`'s."""
    xs, live = _input_names(node), [y for y, ct in zip(node.outputs, cts, strict=True) if ct]
    try:
        body = _body(node)
    except UnsupportedOperatorError as error:
        raise _missing(node, error) from error
    seeds = dict(zip((f"{y}/ct" for y in live), filter(None, cts), strict=True))
    for y, seed in zip(live, seeds, strict=True):
        body.add_input(seed, TensorType(onnx.TensorProto.FLOAT, body.shape(y)))
    asked = [x for x, tensor in zip(xs, node.inputs, strict=True) if tensor in sweep.active]
    nodes = topological(body.nodes)
    active = active_tensors(body, nodes, asked, live, sweep.rules)
    wrt = {x: x for x in asked if x in active}
    if not wrt:
        return [None for _ in xs]
    inner = replace(
        sweep,
        graph=body,
        relu="gradient",
        other_activations="gradient",
        rules=sweep.rules.override(Scan=partial(scan_vjp, sweep, active)),
        rows=None,
    )
    try:
        gradients = inner.pull_back(dict(zip(live, seeds, strict=True)), wrt)
    except (MissingRuleError, UnsupportedControlFlowError) as error:
        raise _missing(node, error) from error
    moved = _moved(op, body, {**dict(zip(xs, node.inputs, strict=True)), **seeds})
    return [moved[gradients[x]] if x in gradients else None for x in xs]


def _missing(node: Node, error: ModelError | MissingRuleError) -> MissingRuleError:
    return MissingRuleError(
        f"{node} has no rule, and its body cannot be differentiated ({error}); add a rule with "
        f"DEFAULT_RULES.override({node.op_type}=my_vjp), or choose a later layer"
    )


def _input_names(node: Node) -> list[str]:
    """What the body calls the inputs of its node: by position, since two may be one tensor."""
    return [f"{node.output}/input{i}" if tensor else "" for i, tensor in enumerate(node.inputs)]


def _body(node: Node) -> Graph:
    """The body of `node` as a canonical graph of its own.

    Sizes, axes and indices that are constant are so in the body; weights are inputs.
    """
    graph, inputs, constants = node.graph, [], []
    xs = _input_names(node)
    for i, (x, tensor) in enumerate(zip(xs, node.inputs, strict=True)):
        value = graph.constant(tensor) if tensor and not graph.is_float(tensor) else None
        if value is not None:
            constants.append(onnx.numpy_helper.from_array(value, x))
        elif tensor:
            inputs.append(_declared(node, i).declare(x))
    outputs = [graph.type(y).declare(y) for y in node.outputs if y]
    proto = onnx.helper.make_node(node.op_type, xs, node.outputs, node.name)
    proto.attribute.extend(node.attributes.values())
    model = onnx.helper.make_model(
        onnx.helper.make_graph([proto], "body", inputs, outputs, constants),
        opset_imports=[onnx.helper.make_opsetid("", node.opset)],
    )
    if ("", node.op_type) in SCANS:
        body = Graph(model)
        decompose(body, SCANS)
        return body
    body = open_canonical(expand_operators(model, [node.op_type]), "keep")
    for cast in body.nodes:  # some bodies compute in doubles; a cotangent is float32
        if cast.op_type == "Cast" and cast.attr("to") == onnx.TensorProto.DOUBLE:
            cast.set_attr("to", onnx.TensorProto.FLOAT)
    body.infer()
    return body


def _declared(node: Node, index: int) -> TensorType:
    """The type of an input in the body, where the states of a recurrent node have X's batch."""
    known = node.graph.type(node.input(index))
    axis = BATCH_AXES.get(index)
    if ("", node.op_type) not in SCANS or axis is None or known.shape is None:
        return known
    batch = node.graph.known_shape(node.input(0))[BATCH_AXES[0]] or "N"
    return replace(known, shape=(*known.shape[:axis], batch, *known.shape[axis + 1 :]))


def _moved(op: Emitter, body: Graph, given: Mapping[str, str]) -> dict[str, str]:
    """Write the nodes of `body` by `op`; what its tensors are called now, `given` names some."""
    names = dict(given)
    for tensor in body.initializers:
        value = body.constant(tensor)
        if tensor not in names and value is not None:
            names[tensor] = op.constant(value, value.dtype)
    for node in topological(body.nodes):
        names.update(zip(node.outputs, op.copy(renamed(node.to_proto(), names)), strict=True))
    return names
