"""Test a rule numerically: is it the transpose of its operator's derivative?

A rule maps a cotangent ct to Jᵀ ct, J being the operator's Jacobian. For every direction v the
numbers <ct, J v> and <Jᵀ ct, v> must agree; J v comes from the operator itself, by differences::

    from graph_rewrites.testing import away_from, check_vjp

    SELU = '''<ir_version: 10, opset_import: ["": 21]>
        selu (float[N, 4] x) => (float[N, 4] y) { y = Selu(x) }'''
    check_vjp(SELU, rule=my_selu_vjp, domain=away_from(0.0))

`check_adjoint` is for operators that are linear, or piecewise linear, in each input: there a
difference of any length is exact. `check_vjp` is for the others: central differences in float64.
`directional_error` checks the whole backward graph of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from graph_rewrites.operator_model import (
    COTANGENT,
    GRADIENT,
    Array,
    Differences,
    Feeds,
    Run,
    backward,
    is_float,
    retyped,
)
from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.rules.table import Rule, VjpFn
from graph_rewrites.sharp import directional_error
from graph_rewrites.sharp_norms import NORMS
from graph_rewrites.sharp_ops import (
    EXACT,
    AveragePool,
    Conv,
    ConvTranspose,
    MaxPool,
    ScatterElements,
)
from graph_rewrites.sharp_sampling import SAMPLING

__all__ = [
    "Domain", "Options", "Runtime", "away_from", "between", "check_adjoint", "check_vjp",
    "directional_error", "distinct", "normal", "reference",
]  # fmt: skip

Runtime = Callable[[onnx.ModelProto], Run]
"""Opens a model."""
Domain = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""Draws a value of the given shape from where the operator is to be tested."""

PROBES = 3


class Options(TypedDict, total=False):
    """What both checks take.

    Attributes:
        rule: the rule; by default the one that `DEFAULT_RULES` has for the operator. One that is
            declared zero must be right: no output may change.
        wrt: positions of the inputs that must get a cotangent, by default all float graph inputs.
            An integer tensor named here is differentiated as if it held floats, since the
            cotangent of a quantised tensor is that of its dequantised value.
        feeds: values of graph inputs by name; the others are drawn from `domain`.
        domain: where inputs are drawn from, or that of each input by name; default `normal`.
        sizes: of symbolic dimensions by name; default 2.
        runtime: what evaluates float32 models; default `reference`. onnxruntime, for example:
            `lambda model: partial(InferenceSession(model.SerializeToString()).run, None)`.
        twin: for a straight-through rule the model, with the same tensor names, whose derivative
            the rule stands for.
        bar: largest error allowed, relative to |ct| |J v|; default 1e-5.
        seed: of inputs, directions and cotangents.
    """

    rule: VjpFn | Rule | None
    wrt: Sequence[int] | None
    feeds: Feeds
    domain: Domain | Mapping[str, Domain]
    sizes: Mapping[str, int]
    runtime: Runtime
    twin: onnx.ModelProto | None
    bar: float
    seed: int


def check_adjoint(
    model: onnx.ModelProto | str, *, step: float = 1.0, **options: Unpack[Options]
) -> float:
    """Check the rule of an operator that is linear, or piecewise linear, in each input.

    Args:
        model: a model, or its ONNX text, of exactly one node. Output types are inferred.
        step: half the length of the difference, in units of directions with |v| ≤ 1 everywhere; an
            operator with kinks needs one that crosses none.
        options: see `Options`.

    Returns:
        The worst |<ct, J v> - <rule(ct), v>| / (|ct| |J v|).

    Raises:
        AssertionError: the rule breaks its contract or computes something else than Jᵀ ct; names
            the operator, its attributes, the input and the error.
    """
    check = _Check.of(model, options)
    twin = retyped(check.twin, check.integers, TensorProto.FLOAT)
    return check.run(twin, check.runtime(twin), step)


def check_vjp(
    model: onnx.ModelProto | str, *, step: float = 1e-4, **options: Unpack[Options]
) -> float:
    """Check the rule of any operator, by central differences in float64.

    `domain` must keep `step` clear of kinks. Arguments, result and errors are those of
    `check_adjoint`; that the runtime computes the operator differently is an error, too.
    """
    check = _Check.of(model, options)
    floats = [value.name for value in check.model.graph.input if is_float(value)]
    twin = retyped(check.twin, [*floats, *check.integers], TensorProto.DOUBLE)
    return check.run(twin, _evaluator(twin, (*EXACT, *NORMS, *SAMPLING)), step)


# -- where inputs are drawn from -----------------------------------------------------------------


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard normal values."""
    return np.asarray(rng.standard_normal(shape))


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Different whole numbers around 0: steps below 0.5 leave every maximum where it is."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size // 2).reshape(shape).astype(np.float64)


def between(low: float, high: float) -> Domain:
    """Uniform values of [low, high]."""
    return lambda rng, shape: np.asarray(rng.uniform(low, high, shape))


def away_from(*kinks: float, gap: float = 0.05, scale: float = 2.0) -> Domain:
    """Normal values of deviation `scale` that stay at least `gap` away from each of `kinks`."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        values = scale * normal(rng, shape)
        for kink in kinks:
            near = np.abs(values - kink) < gap
            values = np.where(near, kink + np.where(values < kink, -gap, gap), values)
        return values

    return draw


# -- what evaluates ------------------------------------------------------------------------------


def reference(model: onnx.ModelProto) -> Run:
    """Open `model` in onnx's own evaluator, its pools and convolutions mended."""
    return _evaluator(model, (AveragePool, Conv, ConvTranspose, MaxPool, ScatterElements))


def _evaluator(model: onnx.ModelProto, operators: Sequence[type[OpRun]]) -> Run:
    session = ReferenceEvaluator(model, new_ops=list(operators))

    def run(feeds: Feeds) -> Sequence[Array]:
        with np.errstate(all="ignore"):  # a NaN is reported as an error of the rule
            return [np.asarray(value) for value in session.run(None, dict(feeds))]

    return run


# -- the check -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Check:
    """One rule and one model; the fields are those of `Options`."""

    model: onnx.ModelProto
    twin: onnx.ModelProto
    rule: Rule
    wrt: Sequence[int]
    feeds: Feeds
    domain: Domain | Mapping[str, Domain]
    sizes: Mapping[str, int]
    runtime: Runtime
    bar: float
    rng: np.random.Generator

    @classmethod
    def of(cls, model: onnx.ModelProto | str, options: Options) -> _Check:
        parsed = onnx.parser.parse_model(model) if isinstance(model, str) else model
        model = retyped(parsed, (), TensorProto.FLOAT)
        (node,) = model.graph.node
        floats = {value.name for value in model.graph.input if is_float(value)}
        wrt = options.get("wrt")
        return cls(
            model,
            options.get("twin") or model,
            _rule(node.op_type, options.get("rule")),
            [i for i, name in enumerate(node.input) if name in floats] if wrt is None else wrt,
            options.get("feeds", {}),
            options.get("domain", normal),
            options.get("sizes", {}),
            options.get("runtime", reference),
            options.get("bar", 1e-5),
            np.random.default_rng(options.get("seed", 0)),
        )

    @property
    def integers(self) -> list[str]:
        """Inputs to differentiate that hold no floats."""
        names = {self.model.graph.node[0].input[position] for position in self.wrt}
        inputs = [value for value in self.model.graph.input if value.name in names]
        return [value.name for value in inputs if not is_float(value)]

    def run(self, twin: onnx.ModelProto, forward: Run, step: float) -> float:
        """Compare the rule with differences of `forward`, which evaluates `twin`."""
        feeds = self._draw()
        moved = Differences(twin, forward, feeds, step)
        if self.twin is self.model:
            self._assert_same_operator(feeds, moved.values)
        float_outputs = [value.name for value in twin.graph.output if is_float(value)]
        if self.rule.fn is None:
            self._assert_zero(moved)
            return 0.0
        return max(self._error(moved, feeds, live) for live in _live_sets(float_outputs))

    def _error(self, moved: Differences, feeds: Feeds, live: Sequence[str]) -> float:
        assert self.rule.fn is not None
        shapes = {y: np.shape(moved.values[y]) for y in live}
        model = backward(self.model, self.rule.fn, self.wrt, shapes)
        pull_back = self.runtime(model)
        names = [value.name for value in model.graph.output]
        claimed = [x for x in feeds if GRADIENT + x in names]
        worst = 0.0
        for x, probe in ((x, probe) for x in claimed for probe in range(PROBES)):
            v = self._direction(feeds[x])
            pushed = moved.along(x, v)
            cts = {y: self._cotangent(pushed[y], aligned=probe == 0) for y in live}
            given = {**feeds, **{COTANGENT + y: ct for y, ct in cts.items()}}
            grad = dict(zip(names, pull_back(given), strict=True))[GRADIENT + x]
            error = _distance(cts, pushed, grad, v) if self._fits(grad, v, x) else np.inf
            if not error <= self.bar:
                raise AssertionError(
                    f"{self}: the cotangent of {x!r}, shape {list(v.shape)}, is off by {error:.2e} "
                    f"of |ct| |J v|; {self.bar:.0e} is allowed"
                )
            worst = max(worst, error)
        return worst

    def _fits(self, grad: Array, v: Array, x: str) -> bool:
        if grad.dtype == np.float32 and grad.shape == v.shape:
            return bool(np.isfinite(grad).all())
        raise AssertionError(
            f"{self}: the cotangent of {x!r} is {grad.dtype} {list(grad.shape)}, "
            f"not float32 {list(v.shape)}"
        )

    def _assert_zero(self, moved: Differences) -> None:
        for x in (self.model.graph.node[0].input[position] for position in self.wrt):
            pushed = moved.along(x, self._direction(moved.feeds[x]))
            if any(change.any() for change in pushed.values()):
                raise AssertionError(f"{self}: declared zero, but its output changes with {x!r}")

    def _assert_same_operator(self, feeds: Feeds, expected: Feeds) -> None:
        """Differences must be taken of the very function that the runtime computes."""
        for result, (y, value) in zip(
            self.runtime(self.model)(feeds), expected.items(), strict=True
        ):
            result, value = np.asarray(result, np.float64), np.asarray(value, np.float64)
            if not np.allclose(result, value, rtol=1e-4, atol=1e-4, equal_nan=True):
                raise AssertionError(f"{self}: two evaluators disagree on {y!r}")

    def _draw(self) -> dict[str, Array]:
        """A value for every graph input."""
        feeds = {}
        for value in self.model.graph.input:
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            drawn = self.feeds.get(value.name)
            if drawn is None:
                shape = tuple(
                    self.sizes.get(dim.dim_param, 2) if dim.dim_param else dim.dim_value
                    for dim in tensor.shape.dim
                )
                domain = self.domain
                draw = domain.get(value.name, normal) if isinstance(domain, Mapping) else domain
                drawn = draw(self.rng, shape)
                if np.issubdtype(dtype, np.unsignedinteger):
                    drawn = drawn - drawn.min()
            feeds[value.name] = np.asarray(drawn, dtype)
        return feeds

    def _direction(self, x: Array) -> Array:
        """Eighths between -1 and 1: they add up exactly, so that secants of whole numbers do."""
        return np.asarray(self.rng.integers(-8, 9, x.shape) / 8)

    def _cotangent(self, pushed: Array, *, aligned: bool) -> Array:
        """J v itself, in which a wrong factor shows in full, or a random direction."""
        if aligned and pushed.any():
            return np.asarray(pushed / np.abs(pushed).max(), np.float32)
        return np.asarray(self.rng.standard_normal(pushed.shape), np.float32)

    def __str__(self) -> str:
        node = self.model.graph.node[0]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return f"{node.op_type}{attributes or ''}"


def _rule(op_type: str, rule: VjpFn | Rule | None) -> Rule:
    if rule is None:
        rule = DEFAULT_RULES.get(op_type)
        if rule is None:
            raise AssertionError(f"{op_type} has no rule")
    return rule if isinstance(rule, Rule) else Rule(op_type, rule)


def _live_sets(outputs: Sequence[str]) -> Iterator[Sequence[str]]:
    """All outputs at once, then each alone: a rule must cope with missing cotangents."""
    yield outputs
    if len(outputs) > 1:
        yield from ([output] for output in outputs)


def _distance(cts: Feeds, pushed: Feeds, grad: Array, v: Array) -> float:
    """|<ct, J v> - <grad, v>| relative to |ct| |J v|; to |ct| |v| where J v is zero."""
    left = sum(float(np.vdot(ct.astype(np.float64), pushed[y])) for y, ct in cts.items())
    right = float(np.vdot(grad.astype(np.float64), v))
    ct_norm = np.linalg.norm([float(np.linalg.norm(ct)) for ct in cts.values()])
    norm = np.linalg.norm([float(np.linalg.norm(pushed[y])) for y in cts])
    scale = ct_norm * (norm or np.linalg.norm(v))
    return float(abs(left - right) / scale) if scale else abs(right)
