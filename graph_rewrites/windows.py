"""One normal form of sliding windows: kernel, strides, dilations, pads and ceil_mode.

Along one axis, with extent e = (k - 1) d + 1, window i of Conv and of the pools reads the padded
positions i s .. i s + e - 1; there are floor or ceil((size + begin + end - e) / s) + 1 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graph_rewrites.emit import Emitter
from graph_rewrites.node import Node
from graph_rewrites.shapes import static_dims
from graph_rewrites.tensor_type import Dim

Ints = tuple[int, ...]
Sizes = list[int] | str
"""Numbers known when the graph is built, or the tensor that holds them at run time."""


@dataclass(frozen=True)
class Window:
    """The window of a Conv, ConvTranspose or pooling node; one entry per spatial axis.

    Attributes:
        kernel: positions read.
        strides: distance between neighbouring windows.
        dilations: distance between neighbouring positions of a window.
        begin: padding in front.
        end: padding behind.
        ceil: whether a last window that reaches beyond the padding counts.
    """

    kernel: Ints
    strides: Ints
    dilations: Ints
    begin: Ints
    end: Ints
    ceil: bool = False

    @classmethod
    def of(cls, node: Node) -> Window:
        """Read the window of `node`, whose pads must be explicit (canonical form).

        Raises:
            UnknownShapeError: the kernel is given neither by attribute nor by the weight's shape.
        """
        kernel = tuple(node.attr("kernel_shape") or _weight_kernel(node))
        n = len(kernel)
        pads = tuple(node.attr("pads") or [0] * 2 * n)
        return cls(
            kernel,
            tuple(node.attr("strides") or [1] * n),
            tuple(node.attr("dilations") or [1] * n),
            pads[:n],
            pads[n:],
            bool(node.attr("ceil_mode", 0)),
        )

    @property
    def axes(self) -> list[int]:
        """The spatial axes of a tensor of layout (N, C, *spatial)."""
        return list(range(2, 2 + len(self.kernel)))

    @property
    def extents(self) -> Ints:
        """Distance from the first position of a window to behind its last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.begin + self.end)

    @property
    def is_pixel(self) -> bool:
        """Whether there is a window at every position, of nothing but that position."""
        return not self.padded and all(n == 1 for n in self.kernel + self.strides)

    def attributes(self) -> dict[str, list[int]]:
        """Strides, dilations and pads as attributes of a Conv."""
        return {
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.begin, *self.end],
        }

    def counts(self, sizes: Sizes) -> list[int] | None:
        """How many windows there are along each axis; None where `sizes` is left to run time.

        With ceil_mode, a window that would begin in the padding behind is none: so say the runtime
        and PyTorch, while ONNX's shape inference counts it.
        """
        if not isinstance(sizes, list):
            return None
        counts = []
        for size, stride, extent, begin, end in zip(
            sizes, self.strides, self.extents, self.begin, self.end, strict=True
        ):
            room = size + begin + end - extent
            count = (-(-room // stride) if self.ceil else room // stride) + 1
            counts.append(count - (self.ceil and (count - 1) * stride >= size + begin))
        return counts

    def transposed(self, sizes: Sequence[Dim]) -> TransposedWindow:
        """The ConvTranspose that spreads windows over an input of `sizes`.

        Its pads are symmetric, the only ones that CUDA has a kernel for; what is then too much is
        cropped. Where a size is symbolic, or ceil_mode decides how many windows there are, the
        result is made long enough for any case.
        """
        pads, extra, starts, exact = [], [], [], True
        for size, stride, extent, begin, end in zip(
            sizes, self.strides, self.extents, self.begin, self.end, strict=True
        ):
            known = stride == 1 or (isinstance(size, int) and not self.ceil)
            uncovered = stride - 1  # padded positions behind the last window, at most
            if isinstance(size, int) and known:
                uncovered = (size + begin + end - extent) % stride
            both = min(begin, end)
            missing = uncovered + both - end
            pads.append(both)
            extra.append(max(0, missing))
            starts.append(begin - both)
            exact &= known and begin == both and missing >= 0
        return TransposedWindow(tuple(pads), tuple(extra), tuple(starts), exact)


@dataclass(frozen=True)
class TransposedWindow:
    """Symmetric pads and output padding of a ConvTranspose, and where its wanted part begins.

    Attributes:
        pads: padding taken off on both sides of each spatial axis.
        output_padding: positions added behind.
        starts: first wanted position.
        exact: whether the result has the wanted size, so that nothing needs to be cropped.
    """

    pads: Ints
    output_padding: Ints
    starts: Ints
    exact: bool


def spread(
    op: Emitter, ct: str, weight: str | np.ndarray, window: Window, x: str, group: int = 1
) -> str:
    """The adjoint of a convolution: `ct` spread over the positions of its input.

    Args:
        op: where to emit.
        ct: (N, M, *windows), the cotangent of the convolution's output.
        weight: (M, C / group, *kernel), as the convolution has it.
        window: the convolution's window.
        x: a tensor that has the spatial sizes of the convolution's input.
        group: the convolution's group.

    Returns:
        (N, C, *spatial).
    """
    turned = window.transposed(op.graph.known_shape(x)[2:])
    full = op.ConvTranspose(
        ct,
        weight,
        group=group,
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*turned.pads, *turned.pads],
        output_padding=list(turned.output_padding),
    )
    return str(full) if turned.exact else crop(op, full, turned.starts, x)


def crop(op: Emitter, tensor: str, starts: Sequence[int], like: str) -> str:
    """Cut the spatial axes of `tensor` to the sizes of `like`, from `starts` on."""
    axes = list(range(2, 2 + len(starts)))
    ends = spatial_sizes(op, like)
    if isinstance(ends, list):
        ends = [size + start for size, start in zip(ends, starts, strict=True)]
    elif any(starts):
        ends = op.Add(ends, list(starts))
    return str(op.Slice(tensor, list(starts), ends, axes))


def spatial_sizes(op: Emitter, tensor: str) -> Sizes:
    """Sizes of `tensor` (N, C, *spatial) behind its channels: numbers, or a tensor."""
    shape = op.shape(tensor)
    if shape is not None and all(isinstance(dim, int) for dim in shape[2:]):
        return [int(dim) for dim in shape[2:] if isinstance(dim, int)]
    return str(op.Shape(tensor, start=2))


def _weight_kernel(node: Node) -> Ints:
    axes = range(2, len(node.graph.known_shape(node.input(1))))
    return tuple(static_dims(node.graph, node.input(1), list(axes)))
