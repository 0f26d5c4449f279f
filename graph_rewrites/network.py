"""The network itself: its inputs and outputs, and the way from the one to the other.

What earlier calls added (stamped nodes, the inputs that only they read, the outputs that they
write) is overlooked, so that scores and feature maps stay the same however often a model is
differentiated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import TensorProto

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.order import topological
from graph_rewrites.stamps import is_original

QUANTIZED_TYPES = frozenset(
    {
        TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8,
        TensorProto.INT16, TensorProto.UINT16, TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
    }
)  # fmt: skip
"""What a QuantizeLinear may write."""


@dataclass(frozen=True)
class Way:
    """Everything on the way from the network's inputs to some of its tensors.

    Attributes:
        nodes: the nodes, in topological order.
        tensors: the tensors that carry values along it, inputs and ends included.
    """

    nodes: tuple[Node, ...]
    tensors: frozenset[str]

    def sources(self, node: Node) -> list[str]:
        """The inputs of `node` that lie on the way, each once: its data, not its parameters."""
        return [name for name in dict.fromkeys(node.inputs) if name in self.tensors]

    def results(self, node: Node) -> list[str]:
        """The outputs of `node` that lie on the way."""
        return [name for name in node.outputs if name in self.tensors]


def network_consumers(graph: Graph, tensor: str) -> list[Node]:
    """The nodes of the network that read `tensor`."""
    return [node for node in graph.consumers(tensor) if is_original(node)]


def network_inputs(graph: Graph) -> list[str]:
    """The graph inputs that belong to the network."""
    return [
        name for name in graph.inputs if network_consumers(graph, name) or not graph.consumers(name)
    ]


def network_outputs(graph: Graph) -> list[str]:
    """The graph outputs that belong to the network."""
    makers = ((name, graph.producer(name)) for name in graph.outputs)
    return [name for name, node in makers if node is None or is_original(node)]


def carries_values(graph: Graph, tensor: str) -> bool:
    """Whether `tensor` holds floats, or integers that may stand for floats; sizes do not."""
    return graph.is_float(tensor) or graph.type(tensor).elem_type in QUANTIZED_TYPES


def way_to(graph: Graph, ends: Iterable[str]) -> Way:
    """The way from the network's inputs to `ends`."""
    nodes = topological([node for node in graph.nodes if is_original(node)])
    reached = set(network_inputs(graph))
    for node in nodes:
        if reached.intersection(node.inputs):
            reached.update(o for o in node.outputs if o and carries_values(graph, o))
    needed = reached.intersection(ends)
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(reached.intersection(node.inputs))
    passed = [node for node in nodes if needed.intersection(node.outputs)]
    return Way(tuple(passed), frozenset(needed))


def display_name(graph: Graph, tensor: str) -> str:
    """The name under which a value is listed once, however often it is quantised.

    That is the float that feeds the QuantizeLinear: the name that people know. Integers that an
    operator on integers made (a pool, a concatenation) keep their own name.
    """
    node = graph.producer(tensor)
    if node is not None and node.op_type == "DequantizeLinear":
        tensor = node.input(0)
        node = graph.producer(tensor)
    if node is None or node.op_type != "QuantizeLinear":
        return tensor
    return display_name(graph, node.input(0))  # which may be quantised itself
