"""Find activations that an exporter wrote as a chain of elementwise operators.

A chain is a part of the network that reads one tensor, besides constants, and hands on one tensor;
nothing between leaves it. It is an activation where the function that it computes is one
(`activation_names`), so that no spelling of any exporter has to be foreseen. The network itself
stays as it is: a chain only tells the sweep and the report what belongs together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper

from graph_rewrites.activation_names import SAMPLES, Array, Named, name_of
from graph_rewrites.canonical.evaluation import evaluate
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import ACTIVATIONS
from graph_rewrites.network import network_consumers, network_outputs
from graph_rewrites.node import Node
from graph_rewrites.order import topological
from graph_rewrites.quantized import quantization, saturates_as_relu
from graph_rewrites.stamps import is_original

_BENDS = ACTIVATIONS | {
    "Abs", "Erf", "Exp", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Sign",
    "Sqrt",
}  # fmt: skip
_ELEMENTWISE = _BENDS | {
    "Add", "And", "Cast", "Div", "Log", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Sub",
    "Sum", "Where",
}  # fmt: skip
_QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear"})
_STORED = frozenset({"Cast", "DequantizeLinear"})  # how constants of 8 and 16 bits are kept

_LONGEST = 32  # nodes of a chain; Q and DQ around each operator of a GELU make about as many
_MOST = 1 << 14  # different values of a constant: slopes per channel, not per pixel
_ANY_OPSET = 21  # the reference has no DequantizeLinear of 18, which means the same
_FEW = 8  # of them tell most formulas apart
_LARGEST = 1 << 20  # values of a constant that is looked at


@dataclass(frozen=True)
class Chain:
    """An activation written as several operators, or as one that is no activation by name.

    Attributes:
        name: what people call it: "SiLU", "GELU", "ReLU6".
        kind: "relu", "clip" (a ReLU with an upper bound) or "smooth".
        bound: the upper bound of a "clip".
        input: the tensor that it is applied to.
        output: the result.
        nodes: all its nodes, in order; the last one writes `output`.
    """

    name: str
    kind: str
    bound: float | None
    input: str
    output: str
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        written = " · ".join(node.op_type for node in self.nodes)
        return f"{self.name} (written as {written}, output {self.output!r})"


class Chains(Mapping[str, Chain]):
    """The chains of a network; that of a node is found by the node's first output."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._by_output = {node.output: chain for chain in chains for node in chain.nodes}

    def __getitem__(self, output: str) -> Chain:
        return self._by_output[output]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_output)

    def __len__(self) -> int:
        return len(self._by_output)


def find_chains(graph: Graph, cuts: Collection[str] = ()) -> Chains:
    """Find the chains of a canonical graph.

    Args:
        graph: the graph; what earlier calls added to it is overlooked.
        cuts: tensors that no ReLU chain may run over, because a cotangent is wanted or given there.
    """
    return Chains(_Finder(graph, cuts).chains())


class _Finder:
    def __init__(self, graph: Graph, cuts: Collection[str]) -> None:
        self.graph = graph
        self.cuts = frozenset(cuts)
        self.nodes = topological([node for node in graph.nodes if is_original(node)])
        self.place = {node.output: i for i, node in enumerate(self.nodes)}
        self.published = frozenset(network_outputs(graph))
        self._constants: dict[str, Array | None] = {}
        self._names: dict[tuple[object, ...], Named | None] = {}

    def chains(self) -> list[Chain]:
        """Whole activations before their parts: from the last node to the first."""
        found: list[Chain] = []
        taken: set[str] = set()
        for node in reversed(self.nodes):
            if node.output in taken or not self._ends_chains(node):
                continue
            chain = self._ending_in(node)
            if chain is not None:
                found.append(chain)
                taken.update(part.output for part in chain.nodes)
        return found[::-1]

    def _ends_chains(self, node: Node) -> bool:
        return (
            node.op_type in _ELEMENTWISE
            and not node.domain
            and node.op_type != "Cast"
            and self.graph.is_float(node.output)
        )

    def _ending_in(self, end: Node) -> Chain | None:
        """The longest chain behind which no other activation follows inside it.

        ReLU and ReLU6 in a row are two activations, though together they compute ReLU6; Max and Min
        in a row are one.
        """
        best: Chain | None = None
        for x, nodes in self._closures(end):
            named = self._name(nodes, x)
            if named is None or (best is not None and named.name == best.name):
                continue
            chain = Chain(named.name, named.kind, named.bound, x, end.output, nodes)
            if chain.kind != "smooth" and not self._may_rectify(chain):
                continue
            if best is not None and self._name(nodes[: -len(best.nodes)], x) is not None:
                break
            best = chain
        if best is not None and len(best.nodes) == 1 and end.op_type in ACTIVATIONS:
            return None  # an operator that says what it is
        return best

    def _may_rectify(self, chain: Chain) -> bool:
        touched = {name for node in chain.nodes for name in (*node.inputs, *node.outputs)}
        return self.cuts.isdisjoint(touched - {chain.input, chain.output})

    def _closures(self, end: Node) -> Iterator[tuple[str, tuple[Node, ...]]]:
        """The parts of the network that end in `end` and read one tensor x: x and the nodes."""
        part = {end.output: end}
        frontier = {name for name in end.inputs if name and self._constant(name) is None}
        while frontier and len(part) <= _LONGEST:
            if len(frontier) == 1:
                nodes = tuple(sorted(part.values(), key=lambda node: self.place[node.output]))
                yield next(iter(frontier)), nodes
            tensor = max(frontier, key=lambda name: self.place.get(name, -1))
            node = self.graph.producer(tensor)
            if node is None or not self._stays_inside(node, tensor, part):
                return
            part[tensor] = node
            frontier.remove(tensor)
            frontier.update(name for name in node.inputs if name and self._constant(name) is None)

    def _stays_inside(self, node: Node, tensor: str, part: Mapping[str, Node]) -> bool:
        return (
            node.op_type in _ELEMENTWISE | _QUANTIZATION
            and not node.domain
            and tensor not in self.published
            and all(reader.output in part for reader in network_consumers(self.graph, tensor))
        )

    # -- what a part computes ------------------------------------------------------------------

    def _name(self, nodes: Sequence[Node], x: str) -> Named | None:
        """The activation that `nodes` compute from `x`; None where it is none we know."""
        if not any(map(self._bends, nodes)):
            return None
        formula = self._formula(nodes, x)
        if formula is None:
            return None
        protos, constants = formula
        few = {name: value[:: -(-value.size // _FEW)] for name, value in constants.items()}
        named = self._evaluated(protos, few)
        same = named is None or all(value.size <= _FEW for value in constants.values())
        return named if same else self._evaluated(protos, constants)

    def _bends(self, node: Node) -> bool:
        quantises = node.op_type == "QuantizeLinear"
        return node.op_type in _BENDS or (quantises and saturates_as_relu(self.graph, node))

    def _evaluated(
        self, protos: Sequence[onnx.NodeProto], constants: Mapping[str, Array]
    ) -> Named | None:
        values = ((name, value.tobytes()) for name, value in constants.items())
        key = (*(proto.SerializeToString() for proto in protos), *values)
        if key not in self._names:
            self._names[key] = _name(protos, constants, self.graph.opset)
        return self._names[key]

    def _formula(
        self, nodes: Sequence[Node], x: str
    ) -> tuple[list[onnx.NodeProto], dict[str, Array]] | None:
        """The nodes as a function of "x" (S, 1), their constants (1) or (C,) beside them."""
        names = {x: "x", "": ""}
        constants: dict[str, Array] = {}
        protos: list[onnx.NodeProto] = []
        shapes = set()
        for node in nodes:
            kept = node.inputs[:1] if node.op_type in _QUANTIZATION else node.inputs
            for name in kept:
                value = self._constant(name) if name not in names else None
                if value is not None:
                    names[name] = f"c{len(constants)}"
                    constants[names[name]] = value.reshape(-1)
                    shapes.add(value.shape)
            names[node.output] = f"t{len(names)}"
            protos += self._protos(node, [names[name] for name in kept], names[node.output])
        several = {shape for shape in shapes if prod(shape) > 1}
        widened = any(shapes) and not self._same_shape(x, nodes[-1].output)
        return None if len(several) > 1 or widened else (protos, constants)

    def _same_shape(self, x: str, y: str) -> bool:
        """Whether constants left the shape of x as it was; their own dimensions are numbers."""
        before, after = self.graph.shape(x), self.graph.shape(y)
        if before is None or after is None or len(before) != len(after):
            return False
        dims = zip(before, after, strict=True)
        return all(a == b or not (isinstance(a, int) or isinstance(b, int)) for a, b in dims)

    def _protos(self, node: Node, inputs: list[str], output: str) -> list[onnx.NodeProto]:
        if node.op_type not in _QUANTIZATION:
            proto = onnx.NodeProto(op_type=node.op_type, input=inputs, output=[output])
            if node.op_type == "Cast" and self.graph.is_float(node.output):
                proto.attribute.append(helper.make_attribute("to", TensorProto.DOUBLE))
            else:
                proto.attribute.extend(node.attributes.values())
            return [proto]
        make, (source,) = helper.make_node, inputs
        q = quantization(self.graph, node.input(0), node)
        if q is None:  # a DequantizeLinear, or a QuantizeLinear with one scale per channel
            return [make("Identity", inputs, [output])]
        rectified, clipped, inside = (f"{output}/{part}" for part in ("relu", "clip", "inside"))
        low, high = ((bound - q.zero_point) * q.scale for bound in (q.least, q.top))
        rectify = "Relu" if saturates_as_relu(self.graph, node) else "Identity"
        return [  # not a number where it saturates for want of range
            make(rectify, [source], [rectified]),
            _number(f"{output}/low", low),
            _number(f"{output}/high", high),
            _number(f"{output}/nan", float("nan")),
            make("Clip", [rectified, f"{output}/low", f"{output}/high"], [clipped]),
            make("Equal", [rectified, clipped], [inside]),
            make("Where", [inside, rectified, f"{output}/nan"], [output]),
        ]

    def _constant(self, tensor: str) -> Array | None:
        """A constant in float64, its shape kept, or one number where all agree; else None."""
        if tensor not in self._constants:
            value = self._stored(tensor)
            if value is not None and value.size and (value == value.flat[0]).all():
                value = value.reshape(-1)[:1] if value.ndim else value
            small = value is not None and value.size <= _MOST
            self._constants[tensor] = value if small else None
        return self._constants[tensor]

    def _stored(self, tensor: str) -> Array | None:
        graph, node = self.graph, self.graph.producer(tensor)
        sources = [tensor] if node is None else [name for name in node.inputs if name]
        if node is not None and node.op_type not in _STORED:
            return None
        protos = [graph.initializers.get(name) for name in sources]
        if any(p is None or prod(p.dims) > _LARGEST or p.data_location for p in protos):
            return None
        values = {name: v for name in sources if (v := graph.constant(name)) is not None}
        if node is None:
            return values[tensor].astype(np.float64)
        return evaluate([node.to_proto()], values, tensor, _ANY_OPSET).astype(np.float64)


def _name(
    protos: Sequence[onnx.NodeProto], constants: Mapping[str, Array], opset: int
) -> Named | None:
    feeds = {**constants, "x": SAMPLES[:, None]}
    try:
        y = evaluate(protos, feeds, protos[-1].output[0], opset)
    except Exception:  # the reference may refuse in any way; then the formula has no name
        return None
    return name_of(np.broadcast_to(y, (len(SAMPLES), y.shape[-1])).astype(np.float64))


def _number(name: str, value: float) -> onnx.NodeProto:
    tensor = helper.make_tensor("", TensorProto.DOUBLE, [], [value])
    return helper.make_node("Constant", [], [name], value=tensor)
