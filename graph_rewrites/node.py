"""What a rule or a pass sees of a node."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.numpy_helper

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs  # noqa: TID251 - the type of the handle that graph.py owns

    from graph_rewrites.graph import Graph
    from graph_rewrites.tensor_type import Shape


class Node:
    """One node of a `Graph`: operator, tensors by name ("" = omitted), attributes, metadata."""

    def __init__(self, graph: Graph, core: gs.Node, proto: onnx.NodeProto) -> None:
        self._graph = weakref.ref(graph)  # in a cycle the weights would wait for the collector
        self.core = core
        self.op_type = proto.op_type
        self.domain = proto.domain
        self.name = proto.name
        self.doc_string = proto.doc_string
        self.attributes = {attribute.name: attribute for attribute in proto.attribute}
        self.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        self._proto = proto
        self.captures = tuple(subgraph_captures(proto))

    @property
    def graph(self) -> Graph:
        """The graph that the node belongs to, which must still be open."""
        graph = self._graph()
        assert graph is not None, f"the graph of {self.op_type} {self.name!r} is closed"
        return graph

    @property
    def inputs(self) -> tuple[str, ...]:
        """Input tensors in the operator's order; an omitted one is ""."""
        return tuple(tensor.name for tensor in self.core.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output tensors in the operator's order; an omitted one is ""."""
        return tuple(tensor.name for tensor in self.core.outputs)

    @property
    def output(self) -> str:
        """The first output that is not omitted: the node's identity across files."""
        return next((name for name in self.outputs if name), "")

    def input(self, index: int) -> str:
        """Input `index`, "" where it is omitted or beyond the end."""
        inputs = self.inputs
        return inputs[index] if index < len(inputs) else ""

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute as int, float, str, list or array; `default` where it is absent."""
        attribute = self.attributes.get(name)
        if attribute is None:
            return default
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, onnx.TensorProto):
            return onnx.numpy_helper.to_array(value)
        return list(value) if attribute.type in _LISTS else value

    def set_attr(self, name: str, value: Any) -> None:
        """Set an attribute, or remove it where `value` is None."""
        self.attributes.pop(name, None)
        if value is not None:
            self.attributes[name] = onnx.helper.make_attribute(name, value)

    def shape(self, tensor: str) -> Shape | None:
        """Shape of a tensor of the node's graph, None where even its rank is unknown."""
        return self.graph.shape(tensor)

    def foreign_source(self) -> Node | None:
        """The nearest custom operator, this one or before it, that leaves the rank unknown here."""
        pending, seen = deque[Node]([self]), set[Node]()
        while pending:
            node = pending.popleft()
            if node.domain:
                return node
            if node not in seen:
                seen.add(node)
                writers = (self.graph.producer(i) for i in node.inputs if self.shape(i) is None)
                pending.extend(writer for writer in writers if writer is not None)
        return None

    def constant(self, tensor: str) -> np.ndarray | None:
        """Value of a constant tensor of the node's graph, None where it is not constant."""
        return self.graph.constant(tensor)

    @property
    def opset(self) -> int:
        """Operator set version that the node is read by."""
        return self.graph.opset

    def __str__(self) -> str:
        name = f"node {self.name!r}, " if self.name else ""
        domain = f"{self.domain}." if self.domain else ""
        return f"{domain}{self.op_type} ({name}output {self.output!r}, opset {self.opset})"

    def to_proto(self) -> onnx.NodeProto:
        """The node as ONNX writes it; what has no field here is kept as the source had it."""
        proto = onnx.NodeProto()
        proto.CopyFrom(self._proto)
        del proto.input[:], proto.output[:], proto.attribute[:], proto.metadata_props[:]
        if proto.op_type != self.op_type:
            proto.op_type = self.op_type
        proto.input.extend(self.inputs)
        proto.output.extend(self.outputs)
        proto.attribute.extend(self.attributes.values())
        for key, value in self.metadata.items():
            proto.metadata_props.add(key=key, value=value)
        return proto


_LISTS = frozenset(
    {onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS}
)


def subgraph_captures(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of `node` take from outside, each once."""
    seen: set[str] = set()
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for name in _free_names(graph):
                if name not in seen:
                    seen.add(name)
                    yield name


def _free_names(graph: onnx.GraphProto) -> Iterator[str]:
    bound = {value.name for value in graph.input}
    bound.update(tensor.name for tensor in graph.initializer)
    bound.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        for name in (*node.input, *subgraph_captures(node)):
            if name and name not in bound:
                yield name
        bound.update(node.output)
    for value in graph.output:
        if value.name not in bound:
            yield value.name


def renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads and writes the new `names`, in its subgraphs too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    _rename([copy], names)
    return copy


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _rename(graph.node, names)
                for value in graph.output:
                    value.name = names.get(value.name, value.name)
