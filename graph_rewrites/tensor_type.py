"""Element types and shapes, and how ONNX declares them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

Dim = int | str | None
"""A dimension: its size, its symbol, or None where nothing is known."""
Shape = tuple[Dim, ...]

FLOAT_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)


@dataclass(frozen=True)
class TensorType:
    """Element type (an onnx.TensorProto.DataType, 0 if unknown) and shape (None if unknown)."""

    elem_type: int = TensorProto.UNDEFINED
    shape: Shape | None = None

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> TensorType:
        """The type that a graph declares."""
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            return cls(tensor.elem_type, None)
        dims: list[Dim] = []
        for dim in tensor.shape.dim:
            kind = dim.WhichOneof("value")
            dims.append(dim.dim_value if kind == "dim_value" else (dim.dim_param or None))
        return cls(tensor.elem_type, tuple(dims))

    def declare(self, name: str) -> onnx.ValueInfoProto:
        """The declaration of a tensor `name` of this type."""
        return onnx.helper.make_tensor_value_info(name, self.elem_type, self.shape)

    def admits(self, other: TensorType) -> bool:
        """Whether `other` is this type, or this type with more of its shape known."""
        if self.shape is None or other.shape is None:
            return self == other
        return (
            self.elem_type == other.elem_type
            and len(self.shape) == len(other.shape)
            and all(d in (None, k) for d, k in zip(self.shape, other.shape, strict=True))
        )
