"""Into the runtime's blocked layout, and on in it.

On the CPU the runtime's convolutions work on channels in blocks of 8 or 16 (NCHWc). Sums, products
and pools go on in that layout as long as all of their inputs are in it and provably of one shape;
one that is not makes all leave it. A MaxPool of 1×1 copies its input, unchanged, into the layout.
"""

from __future__ import annotations

from collections.abc import Sequence

from graph_rewrites.emit import Emitter
from graph_rewrites.lowering.constants import is_fixed
from graph_rewrites.lowering.pattern import pattern
from graph_rewrites.node import Node
from graph_rewrites.shapes import is_static
from graph_rewrites.tensor_type import Shape

_BLOCK = 16
"""Channels in a block on processors with 512-bit registers; 8 on others."""
_PLAIN = frozenset({"ConvTranspose", "MaxUnpool", "ScatterElements"})
"""Operators of the way back that know no blocks."""


@pattern("Expand")
def repeated_pixel(op: Emitter, node: Node) -> str | None:
    """Expand of (N, C, 1, 1) to (N, C, H, W) -> Resize to the nearest of 1×1.

    The way back through a global average pool. Above the classifier everything is in blocked layout
    from there on (with `entry`, ResNet-50's 60 changes of layout become 16).
    """
    x, shape = node.input(0), op.shape(node.output)
    if shape is None or len(shape) != 4 or not is_static(shape) or shape[2:] == (1, 1):
        return None
    if op.shape(x) != (*shape[:2], 1, 1) or not _in_blocks(shape) or is_fixed(op.graph, x):
        return None
    return repeated(op, _entered(op, x), shape[2:])


@pattern("ReduceSum", "ReduceMean", everywhere=True)
def global_pool(op: Emitter, node: Node) -> str | None:
    """Sum or mean over height and width -> GlobalAveragePool, a sum times height and width.

    The pool reads the blocked layout, a reduction does not.
    """
    x, axes = node.input(0), node.constant(node.input(1)) if node.input(1) else None
    shape = op.shape(x)
    if shape is None or len(shape) != 4 or axes is None or not node.attr("keepdims", 1):
        return None
    if sorted(axes % 4) != [2, 3] or not is_static(shape) or not op.graph.is_float(x):
        return None
    mean = op.typed(op.GlobalAveragePool(x), (*shape[:2], 1, 1))
    if node.op_type == "ReduceMean":
        return mean
    height, width = (int(dim) for dim in shape[2:] if isinstance(dim, int))
    return str(op.Mul(mean, float(height * width)))


@pattern("Add", "Mul", "Sum")
def entry(op: Emitter, node: Node) -> str | None:
    """A sum or product with what ConvTranspose or an unpooling wrote -> a MaxPool of 1×1 between.

    Else the other part, mostly the trunk of a residual network, would leave the blocked layout.
    """
    shape = op.shape(node.output)
    plain = {x for x in node.inputs if _is_plain(op, x)}
    if shape is None or not plain or len(plain) == len(set(node.inputs)):
        return None
    if any(op.shape(x) != shape for x in node.inputs):
        return None
    entered = {x: _entered(op, x) for x in plain}
    return str(getattr(op, node.op_type)(*(entered.get(x, x) for x in node.inputs)))


def repeated(op: Emitter, x: str, times: Sequence[object]) -> str:
    """Each position of `x` (N, C, H, W) repeated along height and width: an operator in blocks."""
    scales = op.constant([1.0, 1.0, *times])
    return str(
        op.Resize(
            x,
            None,
            scales,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
    )


def _entered(op: Emitter, x: str) -> str:
    return op.typed(op.MaxPool(x, kernel_shape=[1, 1]), op.shape(x))


def _is_plain(op: Emitter, x: str) -> bool:
    """Whether an operator wrote `x` that knows no blocked layout."""
    writer, shape = op.graph.producer(x), op.shape(x)
    if writer is None or shape is None or len(shape) != 4 or not _in_blocks(shape):
        return False
    if writer.op_type == "Reshape":
        writer = op.graph.producer(writer.input(0))
    return writer is not None and writer.op_type in _PLAIN


def _in_blocks(shape: Shape) -> bool:
    return isinstance(shape[1], int) and shape[1] % _BLOCK == 0
