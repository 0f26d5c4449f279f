"""Steps of random networks: what moves values and computes none."""

from __future__ import annotations

from typing import Any

import numpy as np

from .draft import LARGEST, Dims, Draft, Tensor, step


def _small(dims: Dims) -> bool:
    return bool(np.prod(dims) <= LARGEST // 3)


def _with(x: Tensor, axis: int, size: int) -> Dims:
    """The shape of `x` with another size at `axis`."""
    dims = list(x.dims)
    dims[axis % x.rank - 1] = size
    return tuple(dims)


def _size(x: Tensor, axis: int) -> int:
    return x.dims[axis % x.rank - 1]


@step("Reshape", often=2)
def _reshape(d: Draft, op: str, x: Tensor) -> Any:
    """Two axes become one, or one becomes two; or the shape is computed and stays."""
    if d.chance():
        return d.node(op, x, d.node("Shape", x))
    if x.rank > 2 and d.chance():
        dims = (x.dims[0] * x.dims[1], *x.dims[2:])
    elif x.rank < 5 and x.dims[0] % 2 == 0:
        dims = (2, x.dims[0] // 2, *x.dims[1:])
    else:
        dims = (x.size,)
    return Tensor(d.node(op, x, shape=[d.pick([0, -1]), *dims]), dims)


@step("Flatten")
def _flatten(d: Draft, op: str, x: Tensor) -> Any:
    return Tensor(d.node(op, x, axis=1), (x.size,))


@step("Transpose", often=2)
def _transpose(d: Draft, op: str, x: Tensor) -> Any:
    order = list(range(1, x.rank))
    turn = d.integer(0, x.rank - 2)
    order = order[turn:] + order[:turn]
    if d.chance():
        order[-2:] = order[:-3:-1]
    return Tensor(d.node(op, x, perm=[0, *order]), tuple(x.dims[axis - 1] for axis in order))


@step("Unsqueeze", ranks=(2, 3, 4))
def _unsqueeze(d: Draft, op: str, x: Tensor) -> Any:
    axis = d.integer(1, x.rank)
    dims = (*x.dims[: axis - 1], 1, *x.dims[axis - 1 :])
    return Tensor(d.node(op, x, axes=[axis]), dims)


@step("Squeeze", ranks=(3, 4, 5), when=lambda dims: 1 in dims)
def _squeeze(d: Draft, op: str, x: Tensor) -> Any:
    axis = x.dims.index(1) + 1
    return Tensor(d.node(op, x, axes=[axis]), (*x.dims[: axis - 1], *x.dims[axis:]))


@step("Concat", when=_small, often=2)
def _concat(d: Draft, op: str, x: Tensor) -> Any:
    axis = d.axis(x)
    others = [t for t in d.pool if t.rank == x.rank and _with(t, axis, 1) == _with(x, axis, 1)]
    other = d.pick([t for t in others if t.size <= LARGEST])
    total = _size(x, axis) + _size(other, axis)
    return Tensor(d.node(op, x, other, axis=axis % x.rank), _with(x, axis, total))


@step("Split", when=lambda dims: max(dims) > 1, often=2)
def _split(d: Draft, op: str, x: Tensor) -> Any:
    axis = d.pick([i for i in range(1, x.rank) if _size(x, i) > 1])
    first = d.integer(1, _size(x, axis) - 1)
    sizes = [first, _size(x, axis) - first]
    names = d.node(op, x, split=sizes, axis=axis, outputs=2)
    parts = [Tensor(name, _with(x, axis, n)) for name, n in zip(names, sizes, strict=True)]
    return parts if d.chance() else parts[1:]


@step("Slice", when=lambda dims: max(dims) > 2)
def _slice(d: Draft, op: str, x: Tensor) -> Any:
    axis = d.pick([i for i in range(1, x.rank) if _size(x, i) > 2])
    size = _size(x, axis)
    first, last, by = d.pick([(1, size, 1), (0, -1, 1), (-1, -size - 1, -1), (0, size, 2)])
    if d.opset < 10:
        return Tensor(d.node(op, x, starts=[1], ends=[size], axes=[axis]), _with(x, axis, size - 1))
    made = d.node(op, x, starts=[first], ends=[last], axes=[axis], steps=[by])
    left = {(0, -1, 1): size - 1, (1, size, 1): size - 1, (0, size, 2): (size + 1) // 2}
    return Tensor(made, _with(x, axis, left.get((first, last, by), size)))


@step("Pad", ranks=(3, 4), when=lambda dims: _small(dims) and dims[-1] > 2)
def _pad(d: Draft, op: str, x: Tensor) -> Any:
    modes = ["constant", "reflect", "edge", *(["wrap"] if d.opset >= 19 else [])]
    begin, end = d.integer(0, 1), d.integer(-1, 1)
    still = [0] * (x.rank - 1)
    pads = [*still, begin, *still, end]
    made = d.node(op, x, pads=pads, mode=d.pick(modes))
    return Tensor(made, _with(x, -1, x.dims[-1] + begin + end))


@step("Tile", when=_small)
def _tile(d: Draft, op: str, x: Tensor) -> Any:
    axis = d.integer(1, x.rank - 1)
    repeats = [2 if i == axis else 1 for i in range(x.rank)]
    return Tensor(d.node(op, x, repeats=repeats), _with(x, axis, 2 * _size(x, axis)))


@step("Expand", ranks=(3, 4), when=lambda dims: _small(dims) and 1 in dims)
def _expand(d: Draft, op: str, x: Tensor) -> Any:
    dims = tuple(2 if n == 1 else n for n in x.dims)
    return Tensor(d.node(op, x, shape=[1, *dims]), dims)


@step("Trilu", ranks=(3, 4))
def _trilu(d: Draft, op: str, x: Tensor) -> Any:
    return d.node(op, x, d.constant(np.array(d.integer(-1, 1))), upper=d.integer(0, 1))


@step("ReverseSequence", ranks=(3, 4))
def _reverse_sequence(d: Draft, op: str, x: Tensor) -> Any:
    """Each channel backwards: the channels are the batch of this operator, once they lead."""
    first = list(range(x.rank))
    first[0], first[1] = 1, 0
    rows = d.node("Transpose", x, perm=first)  # (C, N, ...)
    time = d.node("Transpose", rows, perm=[0, x.rank - 1, *range(1, x.rank - 1)])  # (C, W, N, ...)
    lengths = d.constant([1 + i % x.dims[-1] for i in range(x.dims[0])])
    turned = d.node(op, time, lengths, batch_axis=0, time_axis=1)
    back = [2, 0, *range(3, x.rank), 1]
    return d.node("Transpose", turned, perm=back)


# -- indexing -------------------------------------------------------------------------------------


@step("Gather")
def _gather(d: Draft, op: str, x: Tensor) -> Any:
    axis = d.axis(x)
    size = _size(x, axis)
    if x.rank > 2 and d.chance():  # a scalar index takes the axis away
        made = d.node(op, x, d.constant(np.array(d.integer(0, size - 1))), axis=axis % x.rank)
        place = axis % x.rank - 1
        return Tensor(made, (*x.dims[:place], *x.dims[place + 1 :]))
    places = [d.integer(0, size - 1) for _ in range(d.integer(1, 3))]
    return Tensor(d.node(op, x, indices=places, axis=axis % x.rank), _with(x, axis, len(places)))


@step("GatherElements", "ScatterElements")
def _elements(d: Draft, op: str, x: Tensor) -> Any:
    """The places of one image, for every image: a product with nothing but zeros spreads them."""
    rng = np.random.default_rng(len(d.weights))
    axis = x.rank - 1
    order = np.argsort(rng.random((1, *x.dims)), axis=axis)
    places = d.node("Add", d.constant(order), _zeros(d, x))
    if op == "GatherElements":
        return d.node(op, x, places, axis=axis)
    reduction = {"reduction": d.pick(["none", "add"])} if d.opset >= 16 else {}
    return d.node(op, x, places, d.node("Neg", x), axis=axis, **reduction)


def _zeros(d: Draft, x: Tensor) -> str:
    """int64 zeros in the shape of `x`."""
    zeros: str = d.node("Cast", d.node("ConstantOfShape", d.node("Shape", x)), to=7)
    return zeros


@step("GatherND", ranks=(3, 4), when=lambda dims: dims[0] > 1)
def _gather_nd(d: Draft, op: str, x: Tensor) -> Any:
    """Of each image the same two channels."""
    if d.opset < 12:
        return d.node("Neg", x)
    rows = d.node("Slice", _zeros(d, x), *_corner(d, x))  # (N, 1, ..., 1)
    rows = d.node("Reshape", rows, shape=[-1, 1, 1])
    places = d.node("Add", rows, d.constant(np.array([[[0], [x.dims[0] - 1]]])))
    return Tensor(d.node(op, x, places, batch_dims=1), (2, *x.dims[1:]))


def _corner(d: Draft, x: Tensor) -> list[str]:
    """starts, ends and axes of the first element of every image."""
    axes = list(range(1, x.rank))
    return [d.constant([0] * len(axes)), d.constant([1] * len(axes)), d.constant(axes)]


@step("ScatterND", ranks=(3, 4), when=lambda dims: dims[0] > 1)
def _scatter_nd(d: Draft, op: str, x: Tensor) -> Any:
    """The last channel of the first image is overwritten, as KV caches are."""
    updates = d.node(
        "Slice", d.node("Neg", x), d.constant([0, 0]), d.constant([1, 1]), d.constant([0, 1])
    )
    part = d.node("Squeeze", updates, axes=[0, 1])
    rest = d.node("Unsqueeze", part, axes=[0])
    return d.node(op, x, d.constant(np.array([[0, x.dims[0] - 1]])), rest)


@step("Compress")
def _compress(d: Draft, op: str, x: Tensor) -> Any:
    """And the shape told, which shape inference does not read off the condition."""
    axis = d.integer(1, x.rank - 1)
    kept = np.arange(_size(x, axis)) % 2 == 0
    dims = _with(x, axis, int(kept.sum()))
    made = d.node(op, x, d.constant(kept), axis=axis)
    return Tensor(d.node("Reshape", made, shape=[0, *dims]), dims)


@step("TopK", when=lambda dims: dims[-1] > 1)
def _top_k(d: Draft, op: str, x: Tensor) -> Any:
    top = d.integer(1, x.dims[-1])
    count = {"k": top} if d.opset < 10 else {"K": [top]}
    names = d.node(op, x, axis=x.rank - 1, outputs=2, **count)
    return Tensor(names[0], _with(x, -1, top))


@step("ArgMax", "ArgMin", "OneHot")
def _arg(d: Draft, op: str, x: Tensor) -> Any:
    """The extreme of each row, marked; as for Hardmax it must not jump."""
    arg = "ArgMax" if op == "OneHot" else op
    place = d.node(arg, d.uneven(x), axis=x.rank - 1, keepdims=0)
    mark = d.node("OneHot", place, d.constant([x.dims[-1]]), d.constant([0.5, 1.0]))
    return d.node("Mul", x, mark)


@step("NonZero")
def _non_zero(d: Draft, op: str, x: Tensor) -> Any:
    """As many as the picture says, counted."""
    count = d.node("Shape", d.node("NonZero", d.node("Relu", x)))
    share = d.node("Cast", d.node("Gather", count, indices=[1], axis=0), to=1)
    return d.node("Mul", x, d.node("Mul", share, d.constant(0.01)))


@step("Shape", "Size")
def _sizes(d: Draft, op: str, x: Tensor) -> Any:
    if op == "Shape":
        size = d.node("Gather", d.node(op, x), d.constant(np.array(1)), axis=0)
    else:
        size = d.node(op, x)
    return d.node("Div", x, d.node("Cast", size, to=1))


@step("Range", "ConstantOfShape")
def _computed(d: Draft, op: str, x: Tensor) -> Any:
    """A weight that the width of the picture makes."""
    width = d.node("Gather", d.node("Shape", x), d.constant(np.array(x.rank - 1)), axis=0)
    if op == "Range":
        if d.opset < 11:
            return d.node("Neg", x)
        row = d.node(op, d.constant(np.array(0)), width, d.constant(np.array(1)))
        return d.node("Add", x, d.node("Cast", row, to=1))
    return d.node("Sub", x, d.node(op, d.node("Unsqueeze", width, axes=[0])))


@step("EyeLike", ranks=(2,), often=2)
def _eye(d: Draft, op: str, x: Tensor) -> Any:
    return d.node("Add", x, d.node(op, x))
