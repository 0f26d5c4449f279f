"""What small integer tensors (shapes, axes, sizes) hold, as far as it can be told without an image.

A value is an array of entries: a number; a `Batch` for a multiple of the number of images; a
`Symbol` for an open size that has a name; None for a number that is not known. The last two are the
same for any number of images, where that is fixed. Following shape arithmetic on such arrays shows,
for instance, that `Reshape(x, Concat(Shape(x)[:1], [-1]))` keeps the batch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node

Value = np.ndarray
"""An object array of entries, of rank 0 or 1."""

_LARGEST = 64  # longer tensors hold no shapes
_INTEGERS = frozenset({TensorProto.INT64, TensorProto.INT32})
_FOLLOWED = _INTEGERS | {TensorProto.BOOL}


@dataclass(frozen=True)
class Batch:
    """The entry that stands for `block` times the number of images."""

    block: int = 1


@dataclass(frozen=True)
class Symbol:
    """The entry that stands for a dimension of this name."""

    name: str


Entry = int | Batch | Symbol | None


class Values:
    """Follows integer tensors through a graph, node by node in topological order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Value] = {}

    def get(self, tensor: str) -> Value | None:
        """The entries of `tensor`; None for fractions, and where their number is unknown."""
        if tensor in self._known:
            return self._known[tensor]
        known = self._graph.type(tensor)
        dims = [dim for dim in known.shape or () if isinstance(dim, int)]
        if known.elem_type not in _FOLLOWED or known.shape is None or len(dims) < len(known.shape):
            return None
        if len(dims) > 1 or np.prod(dims, dtype=int) > _LARGEST:
            return None
        constant = self._graph.constant(tensor)
        return np.full(dims, None) if constant is None else constant.astype(object)

    def numbers(self, tensor: str) -> list[int] | None:
        """The entries of `tensor` where all are numbers, else None."""
        value = self.get(tensor)
        if value is None or not all(isinstance(entry, int) for entry in value.reshape(-1)):
            return None
        return [int(entry) for entry in value.reshape(-1)]

    def array(self, tensor: str) -> np.ndarray | None:
        """`tensor` itself where all its entries are numbers, else None."""
        numbers, value = self.numbers(tensor), self.get(tensor)
        if numbers is None or value is None:
            return None
        elem_type = self._graph.type(tensor).elem_type or TensorProto.INT64
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        return np.array(numbers, dtype).reshape(value.shape)

    def counts_images(self, tensor: str) -> bool:
        """Whether `tensor` is known to hold the number of images."""
        value = self._known.get(tensor)
        return value is not None and any(isinstance(entry, Batch) for entry in value.reshape(-1))

    def visit(self, node: Node, batch_axis: int | None = None, block: int = 1) -> bool:
        """Learn what `node` computes where that is shape arithmetic, and say whether it is.

        Args:
            node: the next node; for one that is no Shape no input may be a tensor of images.
            batch_axis: for a Shape, the axis of its input that counts the images.
            block: how many places along that axis each image has.
        """
        if node.domain or node.op_type not in _OPERATORS:
            return False
        try:
            if node.op_type == "Shape":
                value = self._shape(node, batch_axis, block)
            else:
                value = _OPERATORS[node.op_type](node, *(self._entries(i) for i in node.inputs))
        except (TypeError, ValueError, IndexError):  # an operand, index or axis is not known
            return False
        self._known[node.output] = value
        return True

    def _entries(self, tensor: str) -> Value | None:
        value = self.get(tensor) if tensor else None
        if tensor and value is None:
            raise ValueError(tensor)
        return value

    def _shape(self, node: Node, batch_axis: int | None, block: int) -> Value:
        shape = self._graph.shape(node.input(0))
        if shape is None:
            raise ValueError(node.input(0))
        value = _array([Symbol(dim) if isinstance(dim, str) else dim for dim in shape])
        if batch_axis is not None:
            value[batch_axis] = Batch(block)
        return value[slice(node.attr("start", 0), node.attr("end"))]


def _array(entries: Sequence[Entry]) -> Value:
    value = np.empty(len(entries), object)
    value[:] = entries
    return value


def _ints(value: Value) -> np.ndarray:
    return value.astype(np.int64)  # raises TypeError where an entry is no number


def _gather(node: Node, data: Value, indices: Value) -> Value:
    return np.asarray(data[_ints(indices)], object)


def _slice(
    node: Node, data: Value, starts: Value, ends: Value, axes: Value | None = None,
    steps: Value | None = None,
) -> Value:  # fmt: skip
    step = 1 if steps is None else int(steps[0])
    return data[int(starts[0]) : int(ends[0]) : step]


def _concat(node: Node, *parts: Value) -> Value:
    return np.concatenate(parts)


def _unsqueeze(node: Node, data: Value, axes: Value) -> Value:
    return data.reshape(-1) if data.ndim == 0 else _fail()


def _squeeze(node: Node, data: Value, axes: Value | None = None) -> Value:
    return data.reshape(()) if data.size == 1 else _fail()


def _reshape(node: Node, data: Value, shape: Value) -> Value:
    return data.reshape(_ints(shape)) if shape.size <= 1 and 0 not in shape else _fail()


def _same(node: Node, data: Value) -> Value:
    return data if node.attr("to", TensorProto.INT64) in _INTEGERS else _fail()


def _fail() -> Value:
    raise ValueError


def _arithmetic(
    compute: Callable[[int, int], int], scale: Callable[[int, int], int] | None = None
) -> Callable[..., Value]:
    """An elementwise operator.

    Args:
        compute: what it does to two numbers.
        scale: what it does to the block of a batch and a number; else only adding nothing is known.
    """

    def entry(a: Entry, b: Entry) -> Entry:
        if isinstance(a, Batch) and isinstance(b, int):
            return Batch(scale(a.block, b)) if scale else a if b == 0 else _fail_entry()
        if isinstance(a, Batch) or isinstance(b, Batch):
            return _fail_entry()
        return compute(a, b) if isinstance(a, int) and isinstance(b, int) else None

    return _elementwise(entry)


def _is_equal(a: Entry, b: Entry) -> Entry:
    if None not in (a, b):
        if a == b or (isinstance(a, int) and isinstance(b, int)):
            return a == b
        if any(isinstance(entry, int) and entry < 0 for entry in (a, b)):
            return False  # no size is negative
    return _unknown(a, b)


def _chosen(condition: Entry, a: Entry, b: Entry) -> Entry:
    if isinstance(condition, int):
        return a if condition else b
    return a if a == b else _unknown(a, b)


def _elementwise(function: Callable[..., Entry]) -> Callable[..., Value]:
    def apply(node: Node, *operands: Value) -> Value:
        entries = np.frompyfunc(function, len(operands), 1)(*operands)
        return np.asarray(entries, object)

    return apply


def _commutative(apply: Callable[..., Value]) -> Callable[..., Value]:
    """The same with the batch in either place."""

    def either(node: Node, a: Value, b: Value) -> Value:
        swap = any(isinstance(entry, Batch) for entry in b.reshape(-1))
        return apply(node, b, a) if swap else apply(node, a, b)

    return either


def _fail_entry() -> Entry:
    raise ValueError


def _unknown(*operands: Entry) -> Entry:
    """The entry for what these do not tell, which no number of images may decide."""
    return _fail_entry() if any(isinstance(entry, Batch) for entry in operands) else None


def _multiply_block(block: int, number: int) -> int:
    if number < 1:
        raise ValueError
    return block * number


def _divide_block(block: int, number: int) -> int:
    if number < 1 or block % number:
        raise ValueError
    return block // number


def _divide(a: int, b: int) -> int:
    if a < 0 or b <= 0:
        raise ValueError
    return a // b


_OPERATORS: dict[str, Callable[..., Value]] = {
    "Shape": _fail,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Equal": _elementwise(_is_equal),
    "Where": _elementwise(_chosen),
    "Cast": _same,
    "Identity": _same,
    "Add": _commutative(_arithmetic(operator.add)),
    "Sub": _arithmetic(operator.sub),
    "Mul": _commutative(_arithmetic(operator.mul, _multiply_block)),
    "Div": _arithmetic(_divide, _divide_block),
}
