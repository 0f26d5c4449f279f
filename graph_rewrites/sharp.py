"""The sharp check: a backward graph against central differences of its own forward, in float64.

In float32 the gradients of deep ReLU networks differ by flipped masks, not by rounding, so that no
tolerance separates a wrong rule from a right one. In float64 a step of 1e-6 flips hardly any mask,
and central differences agree with a right gradient to about 1e-8. No framework is needed: the check
works on any file, also on a user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from graph_rewrites import weights
from graph_rewrites.canonical import open_canonical
from graph_rewrites.chains import find_chains
from graph_rewrites.graph import Graph
from graph_rewrites.layers import resolve
from graph_rewrites.network import QUANTIZED_TYPES
from graph_rewrites.node import subgraph_captures
from graph_rewrites.quantized import quantization, quantizer
from graph_rewrites.rules.relu import relu_site
from graph_rewrites.scores import find_scores
from graph_rewrites.sharp_kinks import Held, hold
from graph_rewrites.sharp_layout import LAYOUT
from graph_rewrites.sharp_norms import NORMS
from graph_rewrites.sharp_ops import EXACT, Array, unrounded_quantize
from graph_rewrites.sharp_sampling import SAMPLING
from graph_rewrites.stamps import is_original

Sites: TypeAlias = Mapping[str, tuple[float, float]]

_WIDENED = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
        # Narrow integers are quantised values, which the check treats as fractions of a step.
        onnx.TensorProto.UINT16,
        onnx.TensorProto.INT16,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT4,
        onnx.TensorProto.INT4,
    }
)
_OFF_KINKS = 0.01  # of the tensor's standard deviation
_CONSTANT = 1e-12  # of the largest value: a deviation that is rounding
_NO_KINK = 1e-7  # an error so small tells that the step crossed no kink
_KINKS_CROSSED = 1e-6  # one above may tell that every step crossed some
_TYPE_ATTRIBUTES = frozenset({"to", "dtype"})


def directional_error(
    grads: onnx.ModelProto,
    inputs: Mapping[str, Array],
    wrt: str,
    of: str | None = None,
    prefix: str = "grad",
    *,
    directions: int = 4,
    steps: Sequence[float] = (1e-5, 1e-6, 1e-7, 1e-4, 1e-3, 1e-2),
    seed: int = 0,
) -> float:
    """How far a differentiated model's gradient g is from its own central differences.

    With a random cotangent ct of the explained tensor f, and random unit directions d of the tensor
    x that g belongs to, the error of one direction is

        | <g, d> - <ct, f(x + h·d) - f(x - h·d)> / 2h |  /  (‖g‖ / √n),

    the best over the steps h, tried until one has crossed no kink. A kink on one side of x says
    nothing about g, and with <ct, 4 (f(x + h/2·d) - f(x)) - (f(x + h·d) - f(x))> / h the other side
    alone is as accurate; so each side counts as well, and so does Richardson's extrapolation of
    both steps, whose error falls as h⁴: small gradients of curved functions need long steps. Where
    every step crosses kinks, in networks of hundreds of layers, ReLUs and max-pools are held to the
    pieces that they are on at x, which has the same derivative. x is first moved a little, since
    whole numbers and the zeros behind a ReLU lie exactly on kinks of what follows. Only
    relu="gradient" is a derivative; the two other ReLU rules cannot be checked so.

    Args:
        grads: what `differentiate` returned.
        inputs: the original inputs by name; small pictures keep this fast.
        wrt: a name given to `differentiate`: the gradient is its output `<prefix>/<wrt>`.
        of: the explained tensor or layer f; by default the class scores.
        prefix: the prefix given to `differentiate`.
        directions: how many directions are tried.
        steps: step lengths h in units of the standard deviation of x, in the order in which they
            are tried: short ones cross fewer kinks, long ones round less, which smooth networks
            with small gradients need.
        seed: of the cotangent and the directions.

    Returns:
        The error of the worst direction; infinity where the gradient is zero everywhere, is not
        finite or has not the shape of x.
    """
    graph = open_canonical(grads)
    name = resolve(graph, wrt).tensor
    target = resolve(graph, of).tensor if of is not None else find_scores(graph).tensor
    step_x, step_y = _step(graph, name), _step(graph, target)
    model = DoubleModel(grads, _relu_sites(graph))
    rng = np.random.default_rng(seed)
    (x,) = model.values((name,), inputs)
    x = x + _OFF_KINKS * spread(x) * rng.standard_normal(x.shape)
    feeds: dict[str, Array] = {**inputs, name: x}
    (y,) = model.values((target,), feeds)
    ct = np.asarray(rng.standard_normal(y.shape))
    feeds["cotangent" if prefix == "grad" else f"{prefix}/cotangent"] = ct
    (g,) = model.values((f"{prefix}/{wrt}",), feeds)
    g = g * (step_x / step_y)  # of the integers, where they stand for the dequantised values
    size: float = float(np.linalg.norm(g)) / g.size**0.5
    if g.shape != x.shape or not np.isfinite(size) or size == 0.0:
        return float("inf")

    f = model.function(target, name, feeds)
    steps = [h * spread(x) for h in steps]
    ways = [np.asarray(rng.standard_normal(x.shape)) for _ in range(directions)]
    ways = [d / np.linalg.norm(d) for d in ways]
    error = max(_slope_error(f, x, g, ct, d, steps) for d in ways) / size
    if error <= _KINKS_CROSSED:
        return error
    f = model.function(target, name, feeds, held_at=x)
    return min(error, max(_slope_error(f, x, g, ct, d, steps) for d in ways) / size)


def spread(x: Array) -> float:
    """The standard deviation of `x`; 1 where it is constant but for rounding."""
    deviation = float(np.std(x))
    return deviation if deviation > _CONSTANT * float(np.abs(x).max(initial=0.0)) else 1.0


def _slope_error(
    f: Callable[[Array], Array],
    x: Array,
    g: Array,
    ct: Array,
    d: Array,
    steps: Sequence[float],
) -> float:
    """The difference between <g, d> and the slope of <ct, f> at x along the direction d."""
    error, enough = float("inf"), _NO_KINK * float(np.linalg.norm(g)) / g.size**0.5
    expected, y = np.vdot(g, d), f(x)
    for slope in (slope for h in steps for slope in _slopes(f, x, y, ct, d, h)):
        error = min(error, abs(float(expected - slope)))
        if error <= enough:
            break
    return error


def _slopes(
    f: Callable[[Array], Array], x: Array, y: Array, ct: Array, d: Array, h: float
) -> Iterator[float]:
    """The slope of <ct, f> at x, y = f(x): central, of each side alone, and without the bend."""
    ahead, behind = f(x + h * d), f(x - h * d)
    central = np.vdot(ct, ahead - behind) / (2 * h)
    yield central
    near = f(x + h / 2 * d)
    yield np.vdot(ct, 4 * (near - y) - (ahead - y)) / h
    back = f(x - h / 2 * d)
    yield np.vdot(ct, (behind - y) - 4 * (back - y)) / h
    yield (4 * np.vdot(ct, near - back) / h - central) / 3


def _step(graph: Graph, tensor: str) -> float:
    """What one step of a quantised tensor amounts to; 1 for all others, the picture included."""
    node = quantizer(graph, tensor) if not graph.is_float(tensor) else None
    q = quantization(graph, node.input(0), node) if node is not None else None
    return q.scale if q is not None else 1.0


def _relu_sites(graph: Graph) -> dict[str, tuple[float, float]]:
    """The QuantizeLinear outputs that a ReLU's mask is read off, with the bounds of that mask."""
    chains = find_chains(graph)
    nodes = [node for node in graph.nodes if is_original(node)]
    found = (relu_site(graph, node, chains) or relu_site(graph, node) for node in nodes)
    return {
        site.mask: (site.lower, site.upper)
        for site in found
        if site is not None and site.upper is not None and site.elem_type in QUANTIZED_TYPES
    }


@dataclass(frozen=True)
class _Step:
    """One node, in double."""

    node: onnx.NodeProto
    evaluator: ReferenceEvaluator

    def results(self, reads: Mapping[str, Array]) -> list[Array]:
        """Its outputs, from what it reads by name."""
        return [np.asarray(value) for value in self.evaluator.run(None, dict(reads))]


_Function: TypeAlias = Callable[
    [Mapping[str, Array], Callable[[_Step, Mapping[str, Array]], list[Array]]], list[Array]
]


class DoubleModel:
    """A model evaluated in float64: any tensor, from values of any tensors before it.

    Weights, constants, type attributes, and what goes in are widened; 32 and 64-bit integers stay.
    Quantised tensors become fractions of a step (`unrounded_quantize`).

    Args:
        model: not changed.
        relu_sites: outputs of the QuantizeLinear nodes at which a ReLU's mask is read, each with
            the least and greatest quantised value that the mask stops at. Nothing else is clamped.
    """

    def __init__(self, model: onnx.ModelProto, relu_sites: Sites | None = None) -> None:
        self._source = model
        self._operators = [*EXACT, *LAYOUT, *NORMS, *SAMPLING, unrounded_quantize(relu_sites or {})]
        self._weights = {
            weight.name: _widen(weights.values(weight)) for weight in model.graph.initializer
        }

    def values(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The tensors `names`, given `feeds`; what they do not need is not evaluated.

        Args:
            names: graph inputs, outputs or any tensors between.
            feeds: values by name, unneeded ones included; a fed tensor is not computed.
        """
        return self._function(names, feeds)({}, _Step.results)

    def function(
        self, of: str, x: str, feeds: Mapping[str, Array], *, held_at: Array | None = None
    ) -> Callable[[Array], Array]:
        """The tensor `of` as a function of the tensor `x`, all else as `feeds` make it.

        Args:
            of: its result.
            x: its argument.
            feeds: values by name.
            held_at: a value of `x`; the operators of `sharp_kinks` are held to the pieces that they
                are on there.
        """
        f = self._function((of,), {**feeds, x: np.empty(0)})
        if held_at is None:
            return lambda value: f({x: value}, _Step.results)[0]
        pieces: dict[str, Held | None] = {}

        def noted(step: _Step, reads: Mapping[str, Array]) -> list[Array]:
            results = step.results(reads)
            pieces[step.node.output[0]] = hold(step.node, reads, results)
            return results

        def held(step: _Step, reads: Mapping[str, Array]) -> list[Array]:
            piece = pieces[step.node.output[0]]
            return step.results(reads) if piece is None else [piece(reads[step.node.input[0]])]

        f({x: held_at}, noted)
        return lambda value: f({x: value}, held)[0]

    def _function(self, names: Sequence[str], feeds: Mapping[str, Array]) -> _Function:
        """Node by node, so that a value is gone after its last use."""
        given = {**self._weights, **{name: _widen(value) for name, value in feeds.items()}}
        steps = [self._step(node) for node in self._nodes(names, given)]
        tensors = [(*step.evaluator.input_names, *step.evaluator.output_names) for step in steps]
        dead = _last_use(tensors, {*names, *given})

        def run(
            more: Mapping[str, Array], results: Callable[[_Step, Mapping[str, Array]], list[Array]]
        ) -> list[Array]:
            known = {**given, **more}
            with np.errstate(all="ignore"):  # a NaN or infinity is the result's business
                for step, done in zip(steps, dead, strict=True):
                    reads = {name: known[name] for name in step.evaluator.input_names}
                    known.update(
                        zip(step.evaluator.output_names, results(step, reads), strict=True)
                    )
                    for name in done:
                        del known[name]
            return [known[name] for name in names]

        return run

    def _step(self, node: onnx.NodeProto) -> _Step:
        untyped = onnx.helper.make_empty_tensor_value_info
        reads = dict.fromkeys(filter(None, (*node.input, *subgraph_captures(node))))
        graph = onnx.helper.make_graph(
            [node], "node", [*map(untyped, reads)], [untyped(name) for name in node.output if name]
        )
        model = onnx.helper.make_model(graph, opset_imports=self._source.opset_import)
        return _Step(node, ReferenceEvaluator(model, new_ops=self._operators))

    def _nodes(self, names: Sequence[str], given: Mapping[str, Array]) -> list[onnx.NodeProto]:
        """The nodes between `given` and `names`, in double."""
        pending, nodes = set(names), []
        for node in reversed(self._source.graph.node):
            made = {name for name in node.output if name in pending and name not in given}
            if made:
                pending.update(name for name in (*node.input, *subgraph_captures(node)) if name)
                nodes.append(_widen_node(node, hidden=set(node.output) & given.keys()))
        missing = pending - given.keys() - {name for node in nodes for name in node.output}
        if missing:
            raise KeyError(f"no value given for {sorted(missing)}")
        return nodes[::-1]


def _last_use(tensors: Sequence[Sequence[str]], kept: Set[str]) -> list[list[str]]:
    """For each step which of its tensors no later one uses, of all that are not `kept`."""
    last = {name: place for place, names in enumerate(tensors) for name in names}
    dead: list[list[str]] = [[] for _ in tensors]
    for name in last.keys() - kept:
        dead[last[name]].append(name)
    return dead


def _widen(value: Array) -> Array:
    """Floats, and integers narrower than 32 bits, as float64."""
    code = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return value.astype(np.float64) if code in _WIDENED else value


def _widen_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(_widen(numpy_helper.to_array(tensor)), tensor.name)


def _widen_node(node: onnx.NodeProto, hidden: Set[str] = frozenset()) -> onnx.NodeProto:
    """A copy of `node` in double, its outputs `hidden` renamed away."""
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    for place, name in enumerate(wide.output):
        if name in hidden:
            wide.output[place] = f"{name}/unused"
    if node.op_type == "ConstantOfShape" and not node.attribute:
        wide.attribute.append(onnx.helper.make_attribute("value", _double([0.0])))
    for attribute in wide.attribute:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _WIDENED:
            attribute.i = onnx.TensorProto.DOUBLE
        elif attribute.name == "value_float":
            attribute.CopyFrom(onnx.helper.make_attribute("value", _double(attribute.f)))
        elif attribute.name == "value_floats":
            attribute.CopyFrom(onnx.helper.make_attribute("value", _double(attribute.floats)))
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _WIDENED:
            attribute.t.CopyFrom(_widen_tensor(attribute.t))
        elif attribute.type == onnx.AttributeProto.GRAPH:
            _widen_graph(attribute.g)
    return wide


def _double(value: float | Sequence[float]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float64))


def _widen_graph(graph: onnx.GraphProto) -> None:
    """Widen a subgraph in place."""
    for weight in graph.initializer:
        if weight.data_type in _WIDENED:
            weight.CopyFrom(_widen_tensor(weight))
    for node in graph.node:
        node.CopyFrom(_widen_node(node))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _WIDENED:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
