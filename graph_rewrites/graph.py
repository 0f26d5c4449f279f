"""The door: the only file that imports onnx_graphsurgeon.

GraphSurgeon keeps the topology (who produces, who consumes); everything it would lose on a round
trip (metadata, doc strings, exotic attributes, quantization annotations, value types it cannot
hold) stays in the protos here and is put back on export. The rest of the package sees tensors as
plain names and nodes as `Node`.

    graph = Graph(model)                 # the caller's model is never touched
    y = graph.append("Relu", ["x"], name="relu")[0]
    model = graph.export()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSequence, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto

from graph_rewrites import weights
from graph_rewrites.declarations import infer_types, keep, normalise, update_types
from graph_rewrites.errors import NameClashError, UnknownShapeError
from graph_rewrites.node import Node
from graph_rewrites.order import topological
from graph_rewrites.tensor_type import FLOAT_TYPES, Shape, TensorType

gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.CRITICAL  # it prints on its own; we raise instead


class Graph:
    """An ONNX model opened for reading and editing. Tensors are names, nodes are `Node`."""

    def __init__(
        self, model: onnx.ModelProto, bulk: Mapping[str, TensorProto] | None = None
    ) -> None:
        """Open a copy of `model`; `bulk` holds weights that `weights.detach` set aside before."""
        light, own = weights.detach(model)
        self._bulk = {**(bulk or {}), **own}
        normalise(light)
        self._source = light
        self.metadata = {entry.key: entry.value for entry in light.metadata_props}
        self.initializers = {tensor.name: tensor for tensor in light.graph.initializer}
        self._inputs = {value.name: value for value in light.graph.input}
        self._outputs = {value.name: value for value in light.graph.output}
        self._values: dict[str, np.ndarray] = {}
        self._nodes: list[Node] = []
        self._wrapped: dict[int, Node] = {}
        self._captured: dict[str, list[Node]] = {}
        self._serial = 0
        self._import(light)
        self.types: dict[str, TensorType] = {}
        self.sort()  # hand-edited files come unsorted, and shape inference reads in order
        self.infer()

    # -- reading ---------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[Node]:
        """All nodes, in the order in which they will be written."""
        return list(self._nodes)

    @property
    def inputs(self) -> list[str]:
        """Names of the graph inputs, initializers excluded."""
        return list(self._inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the graph outputs."""
        return list(self._outputs)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next((o.version for o in self._source.opset_import if not o.domain), 0)

    def producer(self, tensor: str) -> Node | None:
        """The node that computes `tensor`; None for inputs and initializers."""
        known = self._tensors.get(tensor)
        return self._wrapped[id(known.inputs[0])] if known is not None and known.inputs else None

    def consumers(self, tensor: str) -> list[Node]:
        """The nodes that read `tensor`, each once; those that capture it in a subgraph included."""
        known = self._tensors.get(tensor)
        direct = [self._wrapped[id(n)] for n in known.outputs] if known is not None else []
        return list(dict.fromkeys(direct + self._captured.get(tensor, [])))

    def exists(self, tensor: str) -> bool:
        """Whether a tensor of this name is an input, an initializer or computed."""
        return (
            tensor in self._inputs
            or tensor in self.initializers
            or self.producer(tensor) is not None
        )

    def type(self, tensor: str) -> TensorType:
        """Element type and shape as far as they are known."""
        return self.types.get(tensor, TensorType())

    def shape(self, tensor: str) -> Shape | None:
        """Shape of `tensor`, symbols and unknown dimensions included; None without a rank."""
        return self.type(tensor).shape

    def known_shape(self, tensor: str) -> Shape:
        """Shape of `tensor`, whose rank must be known; symbols allowed.

        Raises:
            UnknownShapeError: not even its rank is known.
        """
        shape = self.shape(tensor)
        if shape is None:
            writer = self.producer(tensor)
            raise UnknownShapeError.of(tensor, writer, writer and writer.foreign_source())
        return shape

    def is_float(self, tensor: str) -> bool:
        """Whether `tensor` holds floating-point numbers."""
        return self.type(tensor).elem_type in FLOAT_TYPES

    def constant(self, tensor: str) -> np.ndarray | None:
        """The value of an initializer, or None where `tensor` is none."""
        if tensor not in self.initializers:
            return None
        if tensor not in self._values:
            self._values[tensor] = weights.values(self._bulk.get(tensor, self.initializers[tensor]))
        return self._values[tensor]

    # -- editing ---------------------------------------------------------------------------------

    def append(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        attributes: Iterable[AttributeProto] = (),
        name: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        before: Node | None = None,
    ) -> Node:
        """Add a node that computes the new tensors `outputs` from `inputs` ("" = omitted).

        It comes last, or right before the node `before`.
        """
        taken = next((o for o in outputs if o and self.exists(o)), None)
        if taken is not None:
            raise NameClashError(f"a tensor named {taken!r} exists already; choose another prefix")
        proto = onnx.NodeProto(op_type=op_type, name=name, domain=domain, attribute=attributes)
        for key, value in (metadata or {}).items():
            proto.metadata_props.add(key=key, value=value)
        core = gs.Node(
            op=op_type,
            name=f"#{self._serial}",  # GraphSurgeon compares nodes by name first: keep them unique
            inputs=[self._tensor(i) for i in inputs],
            outputs=[self._tensor(o) for o in outputs],
        )
        node = self._adopt(core, proto)
        if before is not None:
            self._nodes.insert(self._nodes.index(before), self._nodes.pop())
        return node

    def remove(self, nodes: Iterable[Node]) -> None:
        """Remove `nodes`; tensors that they computed cease to exist."""
        gone = {id(node) for node in nodes}
        for node in self._nodes:
            if id(node) in gone:
                node.core.inputs.clear()
                node.core.outputs.clear()
                for captured in node.captures:
                    self._captured[captured].remove(node)
        self._nodes = [node for node in self._nodes if id(node) not in gone]

    def rewire(self, old: str, new: str) -> None:
        """Let every consumer of `old` read `new` instead (graph outputs keep their own name)."""
        for node in self.consumers(old):
            self._substitute(node.core.inputs, old, new)

    def set_inputs(self, node: Node, inputs: Sequence[str]) -> None:
        """Give `node` other inputs."""
        node.core.inputs.clear()
        node.core.inputs.extend([self._tensor(name) for name in inputs])

    def set_outputs(self, node: Node, outputs: Sequence[str]) -> None:
        """Let `node` compute other tensors; those that it no longer computes cease to exist."""
        node.core.outputs.clear()
        node.core.outputs.extend([self._tensor(name) for name in outputs])

    def rename_output(self, node: Node, old: str, new: str) -> None:
        """Let `node` compute `new` in place of `old`; consumers of `old` follow."""
        if self.exists(new):
            raise NameClashError(f"a tensor named {new!r} exists already")
        self._substitute(node.core.outputs, old, new)
        self.rewire(old, new)
        self.types[new] = self.type(old)

    def add_initializer(self, name: str, value: np.ndarray | TensorProto) -> str:
        """Add or replace the initializer `name`."""
        if isinstance(value, TensorProto):
            proto = TensorProto()
            proto.CopyFrom(value)
            proto.name = name
        else:
            contiguous = np.ascontiguousarray(value).reshape(value.shape)  # a scalar stays one
            proto = onnx.numpy_helper.from_array(contiguous, name)
        self._bulk.pop(name, None)
        if weights.is_bulky(proto):
            self._bulk[name] = proto
            proto = weights.emptied(proto)
        self.initializers[name] = proto
        self._values.pop(name, None)
        self._tensor(name)
        self.types[name] = TensorType(proto.data_type, tuple(proto.dims))
        return name

    def bulk(self, name: str) -> onnx.TensorProto:
        """The full proto of an initializer, to be read only."""
        full: onnx.TensorProto = self._bulk.get(name, self.initializers[name])
        return full

    def add_input(self, name: str, type_: TensorType) -> str:
        """Add a graph input."""
        if self.exists(name):
            raise NameClashError(f"a tensor named {name!r} exists already; choose another prefix")
        self._inputs[name] = type_.declare(name)
        self._tensor(name)
        self.types[name] = type_
        return name

    def add_output(self, name: str, type_: TensorType) -> str:
        """Make the existing tensor `name` a graph output."""
        if name in self._outputs:
            raise NameClashError(f"{name!r} is a graph output already")
        self._outputs[name] = type_.declare(name)
        self.types[name] = type_
        return name

    def retype(self, name: str, type_: TensorType) -> None:
        """Declare another type for the graph input or output `name`."""
        for table in (self._inputs, self._outputs):
            if name in table:
                declared = type_.declare(name)
                table[name].type.CopyFrom(declared.type)
        self.types[name] = type_

    def remove_idle(self, tensors: Iterable[str]) -> None:
        """Remove the nodes that were there only to compute `tensors`, which nothing reads now."""
        pending = list(tensors)
        while pending:
            node = self.producer(pending.pop())
            if node is None or any(
                o in self._outputs or self.consumers(o) for o in node.outputs if o
            ):
                continue
            pending.extend((*node.inputs, *node.captures))
            self.remove([node])

    def sort(self) -> None:
        """Put the nodes into topological order, changing the order as little as possible."""
        self._nodes = topological(self._nodes)

    def infer(self) -> None:
        """Compute the types of all tensors anew from the inputs, the initializers and the nodes."""
        self.types = infer_types(self._write(), self._foreign())

    def types_at(self, batch: int) -> dict[str, TensorType]:
        """The types of all tensors if the free batch of the graph inputs were `batch`."""
        light = self._write()
        del light.graph.output[:]  # they would insist on its symbol
        for value in light.graph.input:
            for dim in value.type.tensor_type.shape.dim[:1]:
                if not dim.HasField("dim_value"):
                    dim.dim_value = batch
        return infer_types(light, self._foreign())

    def export(self) -> onnx.ModelProto:
        """Write the model, weights and all, and what the source said where no edit changed it."""
        return weights.attach(*self.export_detached())

    def export_detached(self) -> tuple[onnx.ModelProto, dict[str, TensorProto]]:
        """The same without its bulky weights, and these, which belong to the source."""
        model = self._write()
        update_types(model.graph, self.types, self._foreign())
        return model, self._bulk

    def _foreign(self) -> set[str]:
        """Tensors whose types no inference can tell: the outputs of custom operators."""
        return {name for node in self._nodes if node.domain for name in node.outputs}

    # -- inside ----------------------------------------------------------------------------------

    def _import(self, light: onnx.ModelProto) -> None:
        bare = onnx.GraphProto(input=light.graph.input, output=light.graph.output, name="g")
        bare.initializer.extend(light.graph.initializer)
        for node in light.graph.node:
            bare.node.add(op_type=node.op_type, input=node.input, output=node.output)
        core = gs.import_onnx(onnx.helper.make_model(bare))
        self._tensors: dict[str, gs.Tensor] = core.tensors()
        for gs_node, proto in zip(core.nodes, light.graph.node, strict=True):
            gs_node.name = f"#{self._serial}"
            self._adopt(gs_node, proto)

    def _adopt(self, core: gs.Node, proto: onnx.NodeProto) -> Node:
        node = Node(self, core, proto)
        self._serial += 1
        self._wrapped[id(core)] = node
        self._nodes.append(node)
        for name in node.captures:
            self._captured.setdefault(name, []).append(node)
        return node

    def _tensor(self, name: str) -> gs.Tensor:
        if not name:
            return gs.Variable.empty()
        return self._tensors.setdefault(name, gs.Variable(name))

    def _substitute(self, tensors: MutableSequence[gs.Tensor], old: str, new: str) -> None:
        for i, tensor in enumerate(tensors):  # by index: GraphSurgeon's lists take no slices
            if tensor.name == old:
                tensors[i] = self._tensor(new)

    def _write(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:]
        graph.node.extend(node.to_proto() for node in self._nodes)
        graph.input.extend(self._inputs.values())
        graph.output.extend(self._outputs.values())
        read = {name for node in self._nodes for name in (*node.inputs, *node.captures)}
        read.update(self._outputs)
        graph.initializer.extend(t for name, t in self.initializers.items() if name in read)
        alive = read | {name for node in self._nodes for name in node.outputs}
        keep(graph.value_info, lambda value: value.name in alive)
        keep(graph.quantization_annotation, lambda a: a.tensor_name in alive)
        del model.metadata_props[:]
        for key, value in self.metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model
