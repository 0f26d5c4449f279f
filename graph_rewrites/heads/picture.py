"""Which graph input is the picture, and how it is laid out."""

from __future__ import annotations

from graph_rewrites.activity import CONTROL_FLOW
from graph_rewrites.errors import ModelError, UnsupportedControlFlowError
from graph_rewrites.graph import Graph
from graph_rewrites.layouts import Picture, find_layouts
from graph_rewrites.network import network_inputs, way_to
from graph_rewrites.stamps import is_original


def find_picture(graph: Graph, scores: str) -> Picture:
    """The input that the convolutions on the way to `scores` see.

    Raises:
        UnsupportedControlFlowError: If, Loop or Scan stands in the way.
        ModelError: no input of the model reaches a convolution or a pool.
    """
    picture = find_layouts(graph, way_to(graph, [scores])).picture
    if picture is not None:
        return picture
    control = next((n for n in graph.nodes if n.op_type in CONTROL_FLOW and is_original(n)), None)
    if control is not None:
        raise UnsupportedControlFlowError(
            f"{control} decides at run time, and no picture is known to reach the scores without "
            "it; export the model without control flow"
        )
    described = ", ".join(f"{name} {graph.shape(name)}" for name in network_inputs(graph))
    raise ModelError(
        "the model has no image input: none of its inputs reaches a convolution or a pool "
        f"(inputs: {described or 'none'}); this tool explains networks that see pictures"
    )
