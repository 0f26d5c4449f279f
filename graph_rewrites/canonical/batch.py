"""Free a fixed batch: make it a symbol, and the constants that were written for it neutral.

"Free" means that N images give what N runs with one image each gave. So the axis that counts the
images is followed from the inputs to every output through operators known to keep images apart;
an operator that is not known to, or that mixes them, leaves the model at its own batch. Shapes
alone prove nothing: a normalisation over a reshaped batch has the right shape and wrong numbers.
"""

from __future__ import annotations

import logging

import numpy as np

from graph_rewrites.canonical.batch_axes import AXIS_RULES, NotFreeError
from graph_rewrites.canonical.batch_indexing import INDEXING_RULES
from graph_rewrites.canonical.batch_recurrent import RECURRENT_RULES
from graph_rewrites.canonical.batch_shapes import SHAPE_RULES, ShapeEdit
from graph_rewrites.canonical.batch_sizes import sharpen
from graph_rewrites.canonical.values import Values
from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import Shape, TensorType

_RULES = {**AXIS_RULES, **INDEXING_RULES, **RECURRENT_RULES, **SHAPE_RULES}

_log = logging.getLogger(__name__)


def free_batch(graph: Graph) -> str:
    """Make the fixed leading dimension of the inputs and outputs symbolic, where that is right.

    Args:
        graph: a sorted graph; left as it is where its batch cannot be freed.

    Returns:
        "free", also where the batch was symbolic before; or the reason why it stays fixed.
    """
    try:
        images = _fixed_inputs(graph)
        if not images:
            return "free"
        tracker = Tracker(graph, images)
        tracker.run()
    except NotFreeError as reason:
        _log.warning("the batch stays fixed: %s", reason)
        return str(reason)
    tracker.apply()
    return "free"


def _fixed_inputs(graph: Graph) -> dict[str, int]:
    """The inputs that hold images, with their fixed batch; none where the batch is free."""
    shapes = {name: graph.shape(name) for name in graph.inputs}
    images = {name: shape[0] for name, shape in shapes.items() if shape and len(shape) > 1}
    if not images:
        raise NotFreeError("no input has a batch dimension")
    if not all(isinstance(size, int) for size in images.values()):
        return {}
    fixed = {name: size for name, size in images.items() if isinstance(size, int)}
    if len(set(fixed.values())) > 1:
        raise NotFreeError(f"the inputs have different leading dimensions: {fixed}")
    if 0 in fixed.values():
        raise NotFreeError("the batch is 0")
    return fixed


class Tracker:
    """Follows the batch axis through a graph and collects the edits that free it.

    `axes` maps each tensor that holds something of every image to the axis that counts them. Along
    it an image may have several places in a row, its `block`: windows of attention, for instance,
    are counted together with the images.
    """

    def __init__(self, graph: Graph, images: dict[str, int]) -> None:
        self.graph = graph
        self.size = next(iter(images.values()))
        self.values = Values(graph)
        self.axes: dict[str, int] = dict.fromkeys(images, 0)
        self._images = list(images)
        self._blocks: dict[str, int] = {}
        self._repeats: list[tuple[Node, int, int, str, int]] = []
        self._edits: list[ShapeEdit] = []

    def run(self) -> None:
        """Follow the axis to every output.

        Raises:
            NotFreeError: a node or an output does not keep it.
        """
        needed = _ancestors(self.graph)
        for node in self.graph.nodes:
            if node.output in needed:
                self._visit(node)
        for name in self.graph.outputs:
            begins = self.axes.get(name, 0) == 0 and self.block(name) == 1
            if not begins or self.values.counts_images(name):
                raise NotFreeError(f"output {name!r} does not begin with the batch")
        if not any(name in self.axes for name in self.graph.outputs):
            raise NotFreeError("no output depends on the images")

    def axis(self, tensor: str) -> int | None:
        """The axis of `tensor` that counts the images; None where it is the same for all."""
        return self.axes.get(tensor)

    def block(self, tensor: str) -> int:
        """How many places along its batch axis belong to each image."""
        return self._blocks.get(tensor, 1)

    def merge(self, tensor: str, block: int) -> None:
        """Have each image take `block` places along the batch axis of the result `tensor`."""
        self._blocks[tensor] = block

    def extent(self, tensor: str) -> int:
        """The length of the batch axis of `tensor` at the fixed batch."""
        return self.size * self.block(tensor)

    def shape(self, tensor: str) -> Shape:
        """The shape of `tensor` at the fixed batch.

        Raises:
            NotFreeError: its rank is not known.
        """
        shape = self.graph.shape(tensor)
        if shape is None:
            raise NotFreeError(f"the rank of {tensor!r} is unknown")
        return shape

    def edit(self, edit: ShapeEdit) -> None:
        """Have a constant changed, should the batch turn out to be free."""
        self._edits.append(edit)

    def repeat(self, node: Node, index: int, axis: int) -> bool:
        """Have input `index` of `node`, the same for all images, given once to each along `axis`.

        Returns:
            Whether that can be: it holds what one image reads.
        """
        like = next(name for name in node.inputs if name in self.axes)
        single = self.size == 1 and self.block(like) == 1
        if not single or self.shape(node.input(index))[axis] != 1:
            return False
        self._repeats.append((node, index, axis, like, self.axes[like]))
        return True

    def apply(self) -> None:
        """Carry the edits out and declare the batch to be symbolic."""
        for node, index, axis, like, batch in self._repeats:
            self._repeat(node, index, axis, like, batch)
        for edit in self._edits:
            name = "" if edit.values is None else f"{edit.node.output}/free_shape"
            if edit.values is not None:
                self.graph.add_initializer(name, np.array(edit.values, np.int64))
            inputs = [*edit.node.inputs, *[""] * (edit.index + 1 - len(edit.node.inputs))]
            inputs[edit.index] = name
            self.graph.set_inputs(edit.node, inputs)
            for key, value in edit.attributes.items():
                edit.node.set_attr(key, value)
        symbol = _free_symbol(self.graph)
        for name in [*self._images, *self.graph.outputs]:
            known = self.graph.type(name)
            if name in self.axes and known.shape is not None:
                self.graph.retype(name, TensorType(known.elem_type, (symbol, *known.shape[1:])))
        self.graph.infer()

    def _repeat(self, node: Node, index: int, axis: int, like: str, batch: int) -> None:
        op = Emitter(self.graph, f"{node.output}/input{index}", node.metadata, before=node)
        rank = len(self.shape(node.input(index)))
        count = op.Shape(like, start=batch, end=batch + 1)
        sizes = op.Concat([1] * axis, count, [1] * (rank - axis - 1), axis=0) if rank > 1 else count
        inputs = list(node.inputs)
        inputs[index] = str(op.Expand(node.input(index), sizes))
        self.graph.set_inputs(node, inputs)

    def _visit(self, node: Node) -> None:
        read = [name for name in (*node.inputs, *node.captures) if name]
        batched = any(name in self.axes for name in read)
        blocks = {self.block(name) for name in read if name in self.axes}
        if len(blocks) > 1:
            raise NotFreeError(f"{node} mixes images with parts of images")
        arithmetic = node.op_type == "Shape" or not batched
        counted = self.axis(node.input(0)), self.block(node.input(0))
        known = arithmetic and self.values.visit(node, *counted)
        sharpen(self.graph, self.values, node, self.size)
        if known:
            return
        sized = any(self.values.counts_images(name) for name in read)
        if not batched and not sized:
            return  # the same for any number of images
        rules = SHAPE_RULES if sized else _RULES
        rule = None if node.domain or node.captures else rules.get(node.op_type)
        if rule is None:
            raise NotFreeError(f"{node} is not known to keep images apart")
        for output, axis in zip(node.outputs, rule(self, node), strict=False):
            if output and axis is not None:
                self.axes[output] = axis
                self._blocks.setdefault(output, next(iter(blocks), 1))


def _ancestors(graph: Graph) -> set[str]:
    """First outputs of the nodes that some graph output depends on."""
    pending, needed = list(graph.outputs), set[str]()
    while pending:
        node = graph.producer(pending.pop())
        if node is not None and node.output not in needed:
            needed.add(node.output)
            pending.extend(name for name in (*node.inputs, *node.captures) if name)
    return needed


def _free_symbol(graph: Graph) -> str:
    taken = {dim for known in graph.types.values() for dim in known.shape or ()}
    symbol, n = "N", 1
    while symbol in taken:
        symbol, n = f"N_{n}", n + 1
    return symbol
