"""The small models that a rule is tested with: one operator, its rule, and its differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray
from onnx import TensorProto

from graph_rewrites.emit import Emitter
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.rules.table import Cotangents, VjpFn
from graph_rewrites.tensor_type import Shape, TensorType

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Run = Callable[[Feeds], Sequence[Array]]
"""Evaluates one model: arrays by input name to arrays in the order of the outputs."""

COTANGENT = "ct/"
"""Begins the names of the inputs that carry cotangents of the outputs."""
GRADIENT = "grad/"
"""Begins the names of the outputs that carry cotangents of the inputs."""
DIFFERENTIABLE_TOO = frozenset({("AffineGrid", 0), ("DFT", 0), ("GridSample", 1), ("STFT", 0)})
"""Inputs that ONNX marks non-differentiable, though they are linear or smooth and PyTorch, whose
operators these are, differentiates them: a network that computes them would be refused."""
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def backward(
    model: onnx.ModelProto, fn: VjpFn, wrt: Sequence[int], live: Mapping[str, Shape]
) -> onnx.ModelProto:
    """The operator and its rule as one model.

    Args:
        model: the one-operator model.
        fn: the rule.
        wrt: positions of the inputs that must get a cotangent.
        live: the outputs that have a cotangent, with the shapes they have when the model runs.

    Returns:
        `model` with an input "ct/<output>" for each live output, and an output "grad/<input>" for
        each input that the rule gives a cotangent; that of a tensor read twice is the sum.

    Raises:
        AssertionError: the rule breaks its contract.
    """
    graph = Graph(model)
    (node,) = graph.nodes
    cts = [
        graph.add_input(COTANGENT + y, _cotangent_type(graph.shape(y), live[y]))
        if y in live
        else None
        for y in node.outputs
    ]
    answer = fn(Emitter(graph, "bwd"), node, cts)
    _assert_contract(node, answer, wrt)
    for y, actual in live.items():  # the checker wants at least a rank
        if graph.shape(y) is None:
            graph.retype(y, TensorType(graph.type(y).elem_type, (None,) * len(actual)))
    for x in dict.fromkeys(node.inputs):
        parts = [ct for name, ct in zip(node.inputs, answer, strict=True) if name == x and ct]
        if parts:
            graph.append("Sum", parts, [GRADIENT + x])
            graph.add_output(GRADIENT + x, TensorType(TensorProto.FLOAT, graph.shape(x)))
    _assert_valid(node, exported := graph.export())
    return exported


def retyped(model: onnx.ModelProto, inputs: Sequence[str], elem_type: int) -> onnx.ModelProto:
    """A copy in which `inputs` have another element type; with DOUBLE, float constants too.

    The types of all outputs are inferred anew.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        if value.name in inputs:
            value.type.tensor_type.elem_type = elem_type
    for tensor in copy.graph.initializer:
        if elem_type == TensorProto.DOUBLE and tensor.data_type == TensorProto.FLOAT:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.ClearField("type")
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)


class Differences:
    """J v of an operator, by central differences around one point.

    Attributes:
        feeds: the point, its floats in the type that `model` takes.
        values: the outputs there, by name.
    """

    def __init__(self, model: onnx.ModelProto, forward: Run, feeds: Feeds, step: float) -> None:
        names = {value.name for value in model.graph.input if is_float(value)}
        double = any(v.type.tensor_type.elem_type == TensorProto.DOUBLE for v in model.graph.input)
        dtype = np.float64 if double else np.float32
        self.feeds = {n: x.astype(dtype) if n in names else x for n, x in feeds.items()}
        self._outputs = [value.name for value in model.graph.output]
        self._forward = forward
        self._step = step
        self.values = self._evaluate({})

    def along(self, x: str, v: Array) -> dict[str, Array]:
        """By output the derivative along the direction `v` of the input `x`."""
        here = self.feeds[x]
        shift = np.asarray(self._step * v, here.dtype)
        ahead = self._evaluate({x: np.asarray(here + shift)})
        behind = self._evaluate({x: np.asarray(here - shift)})
        return {
            y: (ahead[y].astype(np.float64) - behind[y].astype(np.float64)) / (2 * self._step)
            for y in self._outputs
        }

    def _evaluate(self, changed: Feeds) -> dict[str, Array]:
        results = self._forward({**self.feeds, **changed})
        return {y: np.asarray(value) for y, value in zip(self._outputs, results, strict=True)}


def is_float(value: onnx.ValueInfoProto) -> bool:
    """Whether a graph input or output holds float32 or float64 numbers."""
    return value.type.tensor_type.elem_type in _FLOATS


def nondifferentiable(node: Node, position: int) -> bool:
    """Whether ONNX's definition of the operator marks this input as non-differentiable."""
    known = onnx.defs.has(node.op_type, node.opset, node.domain)
    if not known or (node.op_type, position) in DIFFERENTIABLE_TOO:
        return False
    formals = onnx.defs.get_schema(node.op_type, node.opset, node.domain).inputs
    formal = formals[min(position, len(formals) - 1)]  # the last one may be variadic
    categories = onnx.defs.OpSchema.DifferentiationCategory
    return bool(formal.differentiation_category == categories.NonDifferentiable)


def _cotangent_type(inferred: Shape | None, actual: Shape) -> TensorType:
    """As inferred, but for sizes that ONNX infers wrongly (pools with ceil_mode)."""
    shape = inferred or (None,) * len(actual)
    dims = [a if isinstance(i, int) else i for i, a in zip(shape, actual, strict=True)]
    return TensorType(TensorProto.FLOAT, tuple(dims))


def _assert_contract(node: Node, answer: Cotangents, wrt: Sequence[int]) -> None:
    if len(answer) != len(node.inputs):
        raise AssertionError(
            f"{node}: its rule returned {len(answer)} cotangents for {len(node.inputs)} inputs"
        )
    for position, ct in enumerate(answer):
        if ct is None and position in wrt:
            raise AssertionError(f"{node}: its rule returned no cotangent for input {position}")
        if ct is not None and nondifferentiable(node, position):
            raise AssertionError(
                f"{node}: its rule returned a cotangent for input {position}, "
                "which ONNX marks non-differentiable"
            )


def _assert_valid(node: Node, model: onnx.ModelProto) -> None:
    foreign = sorted({n.op_type for n in model.graph.node[1:] if n.domain})
    if foreign:
        raise AssertionError(f"{node}: its rule emits operators outside ai.onnx: {foreign}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise AssertionError(f"{node}: its rule's nodes are no valid ONNX: {error}") from error
