"""Settle what training leaves behind: Dropout goes, batch statistics are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper

from graph_rewrites.canonical.functions import all_nodes, describe
from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node

_TRAINING_MODE = 14
"""The opset since which BatchNormalization has this attribute."""


def settle_inference_mode(graph: Graph) -> None:
    """Make every Dropout an Identity; a mask that is read becomes all ones.

    Raises:
        ModelError: a Dropout or BatchNormalization works in training mode.
    """
    dropouts = [node for node in graph.nodes if not node.domain and node.op_type == "Dropout"]
    for node in graph.nodes:
        if not node.domain and node.op_type == "BatchNormalization" and node.attr("training_mode"):
            raise ModelError(
                f"{node} normalises by the statistics of the images at hand (training_mode=1), so "
                "each result depends on the others; export the model in inference mode"
            )
    for node in dropouts:
        _require_inference(graph, node)
        _replace(graph, node)


def refuse_old_training(model: onnx.ModelProto, version: int) -> None:
    """Refuse what said training mode before there was an attribute for it: further results.

    Raises:
        ModelError: a BatchNormalization of before opset 14 computes statistics.
    """
    for node in all_nodes(model.graph) if version < _TRAINING_MODE else ():
        if node.op_type == "BatchNormalization" and not node.domain and any(node.output[1:]):
            raise ModelError(
                f"{describe(node, version)} computes the statistics of the images at hand (it has "
                "several outputs), so each result depends on the others; export the model in "
                "inference mode"
            )


def _require_inference(graph: Graph, node: Node) -> None:
    switch = node.input(2)
    value = graph.constant(switch) if switch else np.array(False)
    if value is None or value.any():
        state = "is decided at run time by an input" if value is None else "is on"
        raise ModelError(f"the training mode of {node} {state}; export the model in inference mode")


def _replace(graph: Graph, node: Node) -> None:
    data = node.input(0)
    output, mask = (*node.outputs, "")[:2]
    node.op_type, node.attributes = "Identity", {}
    graph.set_inputs(node, [data])
    graph.set_outputs(node, [output])
    if mask and (graph.consumers(mask) or mask in graph.outputs):
        true = onnx.numpy_helper.from_array(np.array([True]))
        value, shape = onnx.helper.make_attribute("value", true), f"{mask}/shape"
        graph.append("Shape", [data], [shape], before=node)
        graph.append("ConstantOfShape", [shape], [mask], attributes=[value], before=node)
    if not output:
        graph.remove([node])
