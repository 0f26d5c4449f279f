"""`op`: the emitter that rules and heads write nodes with.

`op.Conv(ct, w, strides=[1, 1])` appends one `ai.onnx` node and returns the name of its output. An
argument is a tensor's name, None for an omitted input, a number (a float32 scalar), a list of ints
(an int64 vector) or an array. Constants are shared: the same value is stored once in a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.tensor_type import Shape, TensorType

Operand = str | float | Sequence[int] | np.ndarray | None


class Emitter:
    """Appends nodes to `graph` under names that begin with `scope`, each stamped with `stamp`."""

    def __init__(
        self,
        graph: Graph,
        scope: str,
        stamp: Mapping[str, str] | None = None,
        read: Callable[[str], str] | None = None,
        before: Node | None = None,
    ) -> None:
        """Open an emitter.

        Args:
            graph: the graph to append to.
            scope: prefix of every node's and tensor's name.
            stamp: metadata written on every node.
            read: what to read in place of a tensor (the sweep repeats forward tensors with it).
            before: the node to write in front of; None appends to the end.
        """
        self.graph = graph
        self.scope = scope
        self.stamp = dict(stamp or {})
        self._read = read or (lambda tensor: tensor)
        self._before = before
        self._used: dict[str, int] = {}

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)

        def emit(*inputs: Operand, outputs: int = 1, **attributes: Any) -> str | tuple[str, ...]:
            names = self._append(op_type, inputs, outputs, attributes)
            return names if outputs > 1 else names[0]

        return emit

    def copy(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """Append a node like `node`, which reads the same names; return its outputs."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [name or None for name in node.input]
        return self._append(node.op_type, inputs, len(node.output), attributes)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of an initializer that holds `value`, shared with equal ones."""
        array = np.asarray(value, dtype=dtype)
        if array.size <= 4:
            text = ",".join(str(item) for item in array.reshape(-1).tolist())
        else:
            text = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        shape = "x".join(map(str, array.shape))
        name = f"const/{array.dtype}{f'[{shape}]' if array.ndim else ''}/{text}"
        if name not in self.graph.initializers:
            self.graph.add_initializer(name, array)
        return name

    def shape(self, tensor: str) -> Shape | None:
        """Shape of a tensor as far as it is known."""
        return self.graph.shape(tensor)

    def rank(self, tensor: str) -> int:
        """Number of dimensions of a tensor, which must be known."""
        return len(self.graph.known_shape(tensor))

    def typed(self, tensor: str, shape: Shape | None, elem_type: int = TensorProto.FLOAT) -> str:
        """Record the type of an emitted tensor, for those who read it later."""
        self.graph.types[tensor] = TensorType(elem_type, shape)
        return tensor

    def fresh(self, label: str) -> str:
        """A tensor name under the scope that is not in use."""
        name, n = f"{self.scope}/{label}", self._used.get(label, 1)
        while self.graph.exists(name):
            n += 1
            name = f"{self.scope}/{label}_{n}"
        self._used[label] = n
        return name

    def _append(
        self, op_type: str, inputs: Sequence[Operand], outputs: int, attributes: Mapping[str, Any]
    ) -> tuple[str, ...]:
        operands = [self._operand(operand) for operand in inputs]
        while operands and not operands[-1]:  # the runtime crashes on some omitted last inputs
            operands.pop()
        first = self.fresh(op_type)
        names = (first, *(f"{first}:{i}" for i in range(1, outputs)))
        self.graph.append(
            op_type,
            operands,
            names,
            attributes=[onnx.helper.make_attribute(k, v) for k, v in attributes.items()],
            name=first,
            metadata=self.stamp,
            before=self._before,
        )
        return names

    def _operand(self, operand: Operand) -> str:
        if operand is None:
            return ""
        if isinstance(operand, str):
            return self._read(operand)
        if isinstance(operand, np.ndarray):
            return self.constant(operand, operand.dtype)
        if isinstance(operand, (int, float)):
            return self.constant(operand, np.float32)
        return self.constant(list(operand), np.int64)
