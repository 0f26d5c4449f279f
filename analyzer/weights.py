"""The large weights of a model beside it, for a session that takes them as they are.

Written into a message, read back and handed over they would be in memory three times more.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy.typing as npt
import onnx
import onnx.numpy_helper

from analyzer.sources import external_data
from graph_rewrites.graph import Graph
from graph_rewrites.weights import detach

_CACHES: Final = 64 << 20  # bytes: more than the caches of a processor usually hold
_PLAIN: Final = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.UINT8})


@dataclass(frozen=True)
class Weight:
    """One of them.

    Attributes:
        tensor: Its type and shape, and its values or where they lie.
        multiplied: Nothing but Gemm reads it, as its second factor.
        file: Where its values lie, relative to the root; "" where in no file.
    """

    tensor: onnx.TensorProto
    multiplied: bool
    file: str

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return external_data.size_of(self.tensor)

    @cached_property
    def array(self) -> npt.NDArray[Any]:
        """Its values, not to be written to."""
        if external_data.is_external(self.tensor):
            return external_data.shared(self.tensor)
        return onnx.numpy_helper.to_array(self.tensor)


def set_apart(
    model: onnx.ModelProto, bulk: Mapping[str, onnx.TensorProto] | None = None
) -> tuple[onnx.ModelProto, dict[str, Weight]]:
    """The model without its large weights, and these by name.

    Args:
        model: Any model.
        bulk: Weights that it was written without, by name.
    """
    light, bulk = detach(model) if bulk is None else (model, bulk)
    found, multiplied = {}, _multiplied(light)
    for stub in light.graph.initializer:
        full = bulk.get(stub.name)
        if full is None:
            continue
        outside = external_data.is_external(full)
        if outside or (full.data_type in _PLAIN and len(full.raw_data) > external_data.LARGE):
            file = external_data.below_root(full) if outside else ""
            found[stub.name] = Weight(full, stub.name in multiplied, file)
            stub.data_location = onnx.TensorProto.EXTERNAL
            stub.external_data.add(key="location", value=file or "handed over")
            stub.external_data.extend(e for e in full.external_data if e.key != "location")
        else:
            stub.CopyFrom(full)
    return light, found


def is_mostly_dense(model: onnx.ModelProto) -> bool:
    """Whether most of the weights, and more than caches hold, multiply rows: as a rule, of images.

    Tokens laid out as rows count as well; products of a batch of tokens (MatMul) do not.
    """
    sizes = {tensor.name: external_data.size_of(tensor) for tensor in model.graph.initializer}
    least = max(_CACHES, sum(sizes.values()) // 2)
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    if sum(sizes[name] for name in matrices) <= least:
        return False  # whatever reads them: to find that out takes longer
    graph = Graph(model)
    products = [node for node in graph.nodes if node.op_type in ("Gemm", "MatMul")]
    rows = [node for node in products if len(graph.shape(node.input(0)) or ()) == 2]
    read = matrices.intersection(node.input(1) for node in rows)
    return sum(sizes[name] for name in read) > least


def _multiplied(model: onnx.ModelProto) -> set[str]:
    """What nothing but Gemm reads, as its second factor."""
    nodes = [node for graph in external_data.graphs(model) for node in graph.node]
    read = Counter(name for node in nodes for name in node.input)
    read.update(value.name for value in model.graph.output)
    factors = Counter(node.input[1] for node in nodes if node.op_type == "Gemm")
    return {name for name, count in factors.items() if read[name] == count}
