"""Where a backward pass reads the forward pass.

A rule names forward tensors as the network has them. What it gets is the tensor behind their
quantisation, and where several cotangents per image go back at once, that tensor with every image
repeated for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from graph_rewrites.errors import SeveralTargetsError
from graph_rewrites.graph import Graph
from graph_rewrites.image_axis import TELLING
from graph_rewrites.network import network_inputs
from graph_rewrites.node import Node
from graph_rewrites.quantized import ALONG, behind_quantization, quantizer
from graph_rewrites.stamps import FORWARD_KEY, OP_KEY, PREFIX_KEY, RULE_KEY, is_original


@dataclass(frozen=True)
class Rows:
    """Several cotangents per image.

    Attributes:
        index: int64 vector, the image that each row of the cotangents belongs to.
        targets: rows of each image.
        images: the tensors whose first axis counts the images.
        mixed: the tensors that depend on the images in any other way.
    """

    index: str
    targets: int
    images: frozenset[str]
    mixed: frozenset[str]

    @classmethod
    def of(cls, graph: Graph, index: str, targets: int) -> Rows:
        """Find the tensors of `graph` whose first axis is the batch, by trying a telling size."""
        known = graph.types_at(TELLING)
        images = {name for name, type_ in known.items() if (type_.shape or (0,))[0] == TELLING}
        depending = set(network_inputs(graph))
        for node in graph.nodes:
            if node.op_type != "Shape" and not depending.isdisjoint((*node.inputs, *node.captures)):
                depending.update(node.outputs)
        return cls(index, targets, frozenset(images), frozenset(depending - images))

    def require_apart(self, node: Node) -> None:
        """Refuse a forward node that works along the images.

        Raises:
            SeveralTargetsError: where images are repeated, it would no longer do the same.
        """
        if self.images.isdisjoint(node.inputs) or not _works_along_images(node):
            return
        raise SeveralTargetsError(
            f"several targets at once need the images apart, but {node} works along them; "
            "explain one target at a time"
        )


_ALONG_AXIS = {
    "Compress": None, "Gather": 0, "GatherElements": 0, "LogSoftmax": -1, "LpNormalization": -1,
    "ScatterElements": 0, "Softmax": -1, "TopK": -1,
}  # fmt: skip
"""Operators that work along one axis, with its default; None stands for all axes."""


def _works_along_images(node: Node) -> bool:
    if node.op_type in ("GatherND", "ScatterND"):
        return not node.attr("batch_dims", 0)
    rank = len(node.shape(node.input(0)) or (None,))  # unknown: any axis may be the images'
    if node.op_type in _ALONG_AXIS:
        axis = node.attr("axis", _ALONG_AXIS[node.op_type])
        return axis is None or axis % rank == 0
    if node.op_type == "CumSum" or node.op_type.startswith("Reduce"):
        axes = node.constant(node.input(1)) if node.input(1) else None
        if axes is None:
            return not node.attr("noop_with_empty_axes", 0)
        return bool((axes % rank == 0).any())
    return False


@dataclass(frozen=True)
class ForwardTensors:
    """The forward tensors as the backward graph `prefix` of `graph` reads them.

    Attributes:
        graph: the graph.
        prefix: of the backward graph.
        rows: which image each row of the cotangents belongs to; None where they correspond.
    """

    graph: Graph
    prefix: str
    rows: Rows | None

    def read(self, tensor: str) -> str:
        """What to read in place of `tensor`.

        Raises:
            SeveralTargetsError: its images cannot be told apart, and each has several cotangents.
        """
        place = behind_quantization(self.graph, tensor)
        rows = self._rows(place)
        source = quantizer(self.graph, place) if place != tensor else None
        if source is None or self.graph.is_float(place):
            return rows
        scales = [attribute for key, attribute in source.attributes.items() if key in ALONG]
        inputs = [rows, *source.inputs[1:]]
        return self._once("DequantizeLinear", inputs, place, "dequantized", scales)

    def _rows(self, tensor: str) -> str:
        """`tensor`, its images repeated where each has several cotangents."""
        writer = self.graph.producer(tensor)
        if self.rows is None or (writer is not None and not is_original(writer)):
            return tensor
        if tensor in self.rows.mixed:
            raise SeveralTargetsError(
                "several targets at once need the images apart along the first axis, but "
                f"{tensor!r} mixes them; explain one target at a time"
            )
        if tensor not in self.rows.images:  # a weight
            return tensor
        axis = onnx.helper.make_attribute("axis", 0)
        return self._once("Gather", [tensor, self.rows.index], tensor, "rows", [axis])

    def _once(
        self,
        op_type: str,
        inputs: Sequence[str],
        forward: str,
        label: str,
        attributes: Sequence[onnx.AttributeProto],
    ) -> str:
        """The output of one node for the tensor `forward`, however often that is read."""
        name = f"bwd/{self.prefix}/{forward}/{label}"
        if not self.graph.exists(name):
            stamp = {FORWARD_KEY: forward, OP_KEY: label, RULE_KEY: "vjp"}
            self.graph.append(
                op_type,
                inputs,
                [name],
                name=name,
                attributes=attributes,
                metadata={PREFIX_KEY: self.prefix, **stamp},
            )
        return name
