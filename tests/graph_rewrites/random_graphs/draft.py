"""A network while it grows, and what a step of its growth is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import helper

_T = TypeVar("_T")
Dims = tuple[int, ...]
_Grow = Callable[["Draft", str, "Tensor"], Any]

ANY, IMAGE = (2, 3, 4, 5), (4,)
WITHOUT_KERNEL = ((), ("GlobalLpPool", "RoiAlign"))
"""What onnxruntime 1.31 does not compute up to opset 21, and behind."""
LARGEST = 400
"""Elements of one image's tensor: a float64 evaluation then takes milliseconds."""


@dataclass(frozen=True)
class Tensor:
    """A tensor by name, and its shape behind the batch."""

    name: str
    dims: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Dimensions, the batch included."""
        return len(self.dims) + 1

    @property
    def size(self) -> int:
        return math.prod(self.dims)


@dataclass
class Draft:
    """A network while it grows; `seed` before each step, so that one can go and the others stay."""

    opset: int
    pool: list[Tensor] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    _rng: random.Random = field(default_factory=random.Random)

    # -- choice ----------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def pick(self, options: Sequence[_T]) -> _T:
        return self._rng.choice(options)

    def integer(self, least: int, most: int) -> int:
        return self._rng.randint(least, most)

    def chance(self) -> bool:
        return self._rng.random() < 0.5

    # -- growth ----------------------------------------------------------------------------------

    def node(self, op: str, *inputs: str | Tensor, outputs: int = 1, **given: Any) -> Any:
        """Append a node; its output's name, or a list of them.

        What is `given` by name goes where the operator of this opset has it: an attribute, or an
        input that becomes a constant. Other names are errors.
        """
        schema = onnx.defs.get_schema(op, self.opset, "")
        names = [item.name if isinstance(item, Tensor) else item for item in inputs]
        places = {item.name: place for place, item in enumerate(schema.inputs)}
        attributes = {name: value for name, value in given.items() if name in schema.attributes}
        for name, value in given.items():
            if name in attributes:
                continue
            names += [""] * (places[name] + 1 - len(names))
            names[places[name]] = self.constant(value)
        made = [f"{op}_{len(self.nodes)}{'abc'[i]}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, value: Any) -> str:
        """Floats become float32, integers int64, arrays stay what they are."""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def weight(self, *dims: int, scale: float = 1.0, offset: float = 0.0) -> str:
        """Random numbers, different for every weight and picture and the same in every run."""
        rng = np.random.default_rng([1, len(self.weights)])
        return self.constant((scale * rng.standard_normal(dims) + offset).astype(np.float32))

    def has(self, op: str) -> bool:
        """Whether the operator set has this operator, and the runtime a kernel for it."""
        return _exists(op, self.opset)

    def near(self) -> Tensor:
        """One of the newest tensors: chains and branches both occur."""
        return self.pick(self.pool[-3:])

    def uneven(self, x: Tensor) -> str:
        """`x` with a weight added: no two numbers are equal, or equal but for rounding."""
        return self.node("Add", x, self.weight(*x.dims))

    def axis(self, x: Tensor) -> int:
        """An axis that is not the batch, counted from either end."""
        axis = self.integer(1, x.rank - 1)
        return axis if self.chance() else axis - x.rank

    def partner(self, x: Tensor) -> str:
        """Something that broadcasts to `x`: a tensor of the network, `x` itself or a weight."""
        fitting = [t.name for t in self.pool if _broadcasts(t.dims, x.dims)]
        if self.chance():
            return self.pick(fitting)
        dims = [n if self.chance() else 1 for n in x.dims]
        return self.weight(*dims[self.integer(0, len(dims) - 1) :])


@cache
def _exists(op: str, opset: int) -> bool:
    if not onnx.defs.has(op, opset, "") or op in WITHOUT_KERNEL[opset > 21]:
        return False
    return not onnx.defs.get_schema(op, opset, "").deprecated


def _broadcasts(dims: tuple[int, ...], to: tuple[int, ...]) -> bool:
    same = len(dims) == len(to)  # a shorter one would have its batch in the wrong place
    return same and all(n in (1, m) for n, m in zip(dims, to, strict=True))


@dataclass(frozen=True)
class Step:
    """How one operator is put behind a tensor.

    Attributes:
        op: the operator.
        grow: appends it behind a tensor; returns the tensors that others may go on from.
        ranks: the ranks it takes, the batch included.
        when: whether it takes a tensor of such a shape behind the batch.
    """

    op: str
    grow: Callable[[Draft, str, Tensor], Sequence[Tensor]]
    ranks: Sequence[int]
    when: Callable[[tuple[int, ...]], bool]

    def fits(self, draft: Draft, x: Tensor) -> bool:
        return x.rank in self.ranks and self.when(x.dims) and draft.has(self.op)


def step(
    *ops: str,
    ranks: Sequence[int] = ANY,
    when: Callable[[Dims], bool] = lambda dims: True,
    often: int = 1,
) -> Callable[[_Grow], _Grow]:
    """Declare how `ops` grow; those that networks have most of `often`.

    A function that returns a name has kept the shape.
    """

    def declare(grow: _Grow) -> _Grow:
        def grown(draft: Draft, op: str, x: Tensor) -> Sequence[Tensor]:
            made = grow(draft, op, x)
            made = Tensor(made, x.dims) if isinstance(made, str) else made
            return [made] if isinstance(made, Tensor) else made

        declared = grow.__dict__.setdefault("steps", [])
        declared += [Step(op, grown, ranks, when) for op in ops] * often
        return grow

    return declare


def collect(*modules: ModuleType) -> list[Step]:
    """The steps that `modules` declare."""
    return [
        one
        for module in modules
        for grow in vars(module).values()
        for one in getattr(grow, "steps", ())
    ]
