"""Where a network decides which linear piece it is on: masks, maxima, signs, quantised steps.

Two runs in float32 that differ by rounding can decide differently at a value near a kink; their
gradients then differ by far more than rounding, and both are right. So one run's decisions are
counted against the other's, and imposed on it: what is left has to be rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx

from analyzer.verification.subject import Array

# Which output of an operator is a decision.
_DECIDING: Final[Mapping[str, int]] = MappingProxyType(
    {
        "ArgMax": 0,
        "ArgMin": 0,
        "Ceil": 0,
        "Equal": 0,
        "Floor": 0,
        "Greater": 0,
        "GreaterOrEqual": 0,
        "Less": 0,
        "LessOrEqual": 0,
        "MaxPool": 1,
        "QuantizeLinear": 0,
        "Round": 0,
        "Sign": 0,
        "TopK": 1,
    }
)
_OWN = "/own"


def decisions(model: onnx.ModelProto) -> tuple[str, ...]:
    """Every tensor of the graph that holds a decision, outputs of the graph left out."""
    given = {value.name for value in model.graph.output}
    return tuple(name for _, _, name in _places(model) if name not in given)


def expose(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy that has the tensors `names` among its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def impose(model: onnx.ModelProto, made: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy that takes the decisions `made` as inputs; its own become outputs, see `flips`."""
    copy = expose(model, [name + _OWN for name in made])
    for node, output, name in _places(copy):
        if name in made:
            node.output[output] = name + _OWN
    for name, value in made.items():
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, None))
    return copy


def flips(made: Mapping[str, Array], outputs: Mapping[str, Array]) -> int:
    """How many elements a run of an `impose`d model would have decided otherwise."""
    return sum(int(np.count_nonzero(outputs[name + _OWN] != made[name])) for name in made)


def _places(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int, str]]:
    for node in model.graph.node:
        output = _DECIDING.get(node.op_type, len(node.output))
        if output < len(node.output) and node.output[output]:
            yield node, output, node.output[output]
