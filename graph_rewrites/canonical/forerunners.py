"""Write Upsample, the Resize of opset 10 and Scatter as the operators that succeeded them.

`onnx.version_converter` gives the successors other output names, so that layers and metadata are
lost, and makes resizing half-pixel though it was asymmetric. So they are written here, in the form
of opset 18, and kept from the converter under another domain while it works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx.numpy_helper

from graph_rewrites.canonical.functions import all_nodes, describe
from graph_rewrites.errors import UnsupportedOperatorError

_DOMAIN = "graph_rewrites.later"
_LAST_RESIZE, _LAST_SCATTER = 10, 10
"""The last opsets of these operators as they were."""
_NO_WAY_BACK = 22
"""Since then GlobalMaxPool takes bfloat16; the converter does not know that it is the same else."""


def succeed(model: onnx.ModelProto, version: int) -> None:
    """Write the forerunners of a model of opset `version` as opset 18 does, in place, set apart.

    Raises:
        UnsupportedOperatorError: a Resize that later opsets cannot express.
    """
    found = []
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(all_nodes(model.graph)):
        if node.domain:
            continue
        if node.op_type in ("Resize", "Upsample") and version <= _LAST_RESIZE:
            model.graph.initializer.extend(_resize(node, stored))
            found.append(node)
        elif node.op_type == "Scatter" and version <= _LAST_SCATTER:
            node.op_type = "ScatterElements"
            found.append(node)
        elif node.op_type == "GlobalMaxPool" and version >= _NO_WAY_BACK:
            found.append(node)
    for node in found:
        node.domain = _DOMAIN
    if found:
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))


def release(model: onnx.ModelProto) -> None:
    """Give the successors back to the default domain, in place, whatever its version is now."""
    for node in all_nodes(model.graph):
        if node.domain == _DOMAIN:
            node.domain = ""
    for entry in [entry for entry in model.opset_import if entry.domain == _DOMAIN]:
        model.opset_import.remove(entry)


def _resize(
    node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]
) -> Iterator[onnx.TensorProto]:
    """Write one Upsample or Resize; yields its scales where they were an attribute."""
    given = {attribute.name: attribute for attribute in node.attribute}
    if "scales" in given:  # until opset 8
        scales = list(given["scales"].floats)
        name = f"{node.output[0]}/scales"
        yield onnx.numpy_helper.from_array(np.array(scales, np.float32), name)
    else:
        name = node.input[1]
        scales = onnx.numpy_helper.to_array(stored[name]).tolist() if name in stored else []
    mode = "nearest" if "mode" not in given or given["mode"].s == b"nearest" else "linear"
    settings = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        settings["nearest_mode"] = _rounding(node, scales)
    node.op_type = "Resize"
    node.input[:] = [node.input[0], "", name]
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in settings.items())


def _rounding(node: onnx.NodeProto, factors: Sequence[float]) -> str:
    """How the runtime rounds to the nearest cell: down, but up along an axis that shrinks."""
    if all(factor >= 1 for factor in factors):
        return "floor"
    if all(factor <= 1 for factor in factors):
        return "ceil"
    raise UnsupportedOperatorError(
        f"operator {describe(node)} enlarges one axis and shrinks another by the rules of before "
        "opset 11, which later ones cannot express; export the model with opset 11 or above"
    )
