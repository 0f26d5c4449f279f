"""Widen 16-bit floating point: arithmetic in float32, weights stored as they were behind a Cast.

A 16-bit backward overflows, lacks kernels, and rounds differently from run to run. The runtime
folds the Casts of the weights when it loads the model, so the file stays small and nothing is
slower. Graph inputs and outputs keep their names and types; inner tensors keep their names.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto

from graph_rewrites.errors import UnsupportedControlFlowError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node

HALF: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}

_FEW = 16  # constants of up to this many elements (bounds, scales, exponents) become float32


def widen(graph: Graph) -> set[str]:
    """Make all 16-bit arithmetic float32.

    Returns:
        The types that were widened: "float16", "bfloat16".

    Raises:
        UnsupportedControlFlowError: a subgraph computes in 16 bits.
    """
    half = {name: known.elem_type for name, known in graph.types.items() if known.elem_type in HALF}
    computed = {name for name in half if graph.producer(name) is not None}
    if not computed:
        return set()  # at most stored in 16 bits, behind Casts
    nodes = graph.nodes
    for node in nodes:
        _refuse_subgraph(node, half)
    for name in half.keys() - computed:
        _widen_source(graph, name)
    for node in nodes:
        if node.domain:
            _fence(graph, node, half, computed)
        else:
            _widen_attributes(graph, node, computed)
    for name in computed.intersection(graph.outputs):
        _narrow_output(graph, name, half[name])
    graph.sort()
    graph.infer()
    return {HALF[elem_type] for elem_type in half.values()}


def _refuse_subgraph(node: Node, half: dict[str, int]) -> None:
    nested = any(a.HasField("g") or a.graphs for a in node.attributes.values())
    if nested and not half.keys().isdisjoint((*node.captures, *node.inputs, *node.outputs)):
        raise UnsupportedControlFlowError(
            f"{node} computes in 16 bits inside a subgraph, which cannot be widened; export the "
            "model in float32, or without control flow"
        )


def _widen_source(graph: Graph, name: str) -> None:
    """Let the operators that read a 16-bit input or initializer read it as float32."""
    all_readers = graph.consumers(name)
    readers = [node for node in all_readers if not node.domain and node.op_type != "Cast"]
    if not readers:
        return
    small = name in graph.initializers and np.prod(graph.initializers[name].dims) <= _FEW
    if small and len(readers) == len(all_readers):
        value = graph.constant(name)
        if value is not None:
            graph.add_initializer(name, value.astype(np.float32))
            return
    wide = _fresh(graph, f"{name}/float32")
    _cast(graph, name, wide, TensorProto.FLOAT, readers[0])
    for node in readers:
        _replace_input(graph, node, name, wide)


def _widen_attributes(graph: Graph, node: Node, computed: set[str]) -> None:
    """Let what names a 16-bit type in a node name float32; a Cast that is idle then goes."""
    for key in ("to", "dtype"):
        if node.attr(key) in HALF:
            node.set_attr(key, TensorProto.FLOAT)
    for key, attribute in list(node.attributes.items()):
        if attribute.t.data_type in HALF:
            value = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
            node.set_attr(key, onnx.numpy_helper.from_array(value))
    source = node.input(0)
    float32 = source in computed or graph.type(source).elem_type == TensorProto.FLOAT
    if node.op_type == "Cast" and node.attr("to") == TensorProto.FLOAT and float32:
        node.op_type, node.attributes = "Identity", {}


def _fence(graph: Graph, node: Node, half: dict[str, int], computed: set[str]) -> None:
    """Let a custom operator go on computing in 16 bits, Casts around it."""
    for name in computed.intersection(node.inputs):
        narrow = _fresh(graph, f"{name}/{HALF[half[name]]}")
        _cast(graph, name, narrow, half[name], node)
        _replace_input(graph, node, name, narrow)
    for name in computed.intersection(node.outputs):
        narrow = _fresh(graph, f"{name}/{HALF[half[name]]}")
        graph.set_outputs(node, [narrow if output == name else output for output in node.outputs])
        _cast(graph, narrow, name, TensorProto.FLOAT, node)


def _narrow_output(graph: Graph, name: str, elem_type: int) -> None:
    producer = graph.producer(name)
    assert producer is not None  # it is computed
    wide = _fresh(graph, f"{name}/float32")
    graph.rename_output(producer, name, wide)
    _cast(graph, wide, name, elem_type, producer)


def _cast(graph: Graph, source: str, target: str, elem_type: int, before: Node) -> None:
    to = onnx.helper.make_attribute("to", elem_type)
    graph.append("Cast", [source], [target], attributes=[to], name=target, before=before)


def _replace_input(graph: Graph, node: Node, old: str, new: str) -> None:
    graph.set_inputs(node, [new if name == old else name for name in node.inputs])


def _fresh(graph: Graph, name: str) -> str:
    while graph.exists(name):
        name += "_"
    return name
