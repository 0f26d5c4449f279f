"""Any model to canonical form, the one form that rules, scores and layers are written for.

The passes, in order; each is a file:

1. `wiring`: nodes are sorted.
2. `functions`: local functions are inlined, operators younger than opset 21 expanded.
3. `constants`: Constant nodes become initializers.
4. `opset`: operator set 18 to 21, IR 10.
5. `decompose`: operators that the runtime fused (`fused`) or quantised (`integer`, `dynamic`), and
   those that are compositions of older ones (`composites`, `attention`), are expressed by standard
   ones; recurrent ones get the time in front (`recurrent`).
6. `inference_mode`: Dropout goes; batch statistics are refused.
7. `identities`: Identity goes.
8. `folding`: what depends on no image is computed; sizes do not count as known yet.
9. `branches`: an If whose condition is known becomes the branch that it takes; 5 to 8 go over it.
10. `padding`: every window names its own pads.
11. `views`: strided views that keep the order of the numbers become Reshapes.
12. `batch`: a fixed batch becomes symbolic where images provably stay apart.
13. `folding` and `views` again: now sizes count as known.
14. `growing_concats`: each step of a growing concatenation starts from the one before it.
15. `widening`: 16-bit arithmetic becomes float32.
16. `unsigned`: int8 activations become uint8 where the runtime would make them so.

The outputs of the canonical model equal the original's, for every image. Tensors that still exist
keep their names. What was done is stamped into the model's metadata: see `canonical_facts`.
"""

from __future__ import annotations

from typing import Literal

import onnx

from graph_rewrites import weights
from graph_rewrites.canonical.batch import free_batch
from graph_rewrites.canonical.branches import resolve_branches
from graph_rewrites.canonical.composites import COMPOSITES, bring_back, set_aside
from graph_rewrites.canonical.constants import lift_constants
from graph_rewrites.canonical.decompose import Table, decompose
from graph_rewrites.canonical.dynamic import DYNAMIC
from graph_rewrites.canonical.facts import KEY, canonical_facts, write_stamp
from graph_rewrites.canonical.folding import fold_constants
from graph_rewrites.canonical.functions import inline_local_functions
from graph_rewrites.canonical.fused import FUSED, claim_premature
from graph_rewrites.canonical.growing_concats import nest_concats
from graph_rewrites.canonical.identities import remove_identities
from graph_rewrites.canonical.inference_mode import settle_inference_mode
from graph_rewrites.canonical.integer import INTEGER
from graph_rewrites.canonical.opset import convert_opset
from graph_rewrites.canonical.padding import make_pads_explicit
from graph_rewrites.canonical.recurrent import TIME_FIRST
from graph_rewrites.canonical.unsigned import make_unsigned
from graph_rewrites.canonical.views import straighten_views
from graph_rewrites.canonical.widening import widen
from graph_rewrites.canonical.wiring import sort_nodes
from graph_rewrites.declarations import normalise
from graph_rewrites.graph import Graph

__all__ = ["canonical_facts", "canonicalize", "open_canonical"]

Batch = Literal["free", "keep"]

DECOMPOSED: Table = {**FUSED, **INTEGER, **DYNAMIC, **COMPOSITES, **TIME_FIRST}
"""Operators of one runtime, operators that compute in integers, and mere compositions."""


def canonicalize(model: onnx.ModelProto, batch: Batch = "free") -> onnx.ModelProto:
    """Return the canonical form of a model: the same function in the form that we differentiate.

    Args:
        model: any model; it is not changed. One that is canonical already is returned as a copy.
        batch: "free" makes a fixed leading dimension of the inputs and outputs symbolic where that
            is right, and says in a log message why where it is not; "keep" leaves it as it is.

    Returns:
        A model of opset 18 to 21 with the same inputs and outputs.

    Raises:
        ModelError: the model cannot be used; `UnsupportedOperatorError` names an operator that has
            no canonical form, `UnknownShapeError` a size that must be fixed.
        ValueError: `batch` is neither "free" nor "keep".
    """
    if canonical_facts(model):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    return open_canonical(model, batch).export()


def open_canonical(model: onnx.ModelProto, batch: Batch = "free") -> Graph:
    """Open a model for editing in its canonical form: `Graph(canonicalize(model))`, but quicker.

    The weights are set aside and never copied, converted or looked at on the way.
    """
    if batch not in ("free", "keep"):
        raise ValueError(f"batch is {batch!r}, but must be 'free' or 'keep'")
    if canonical_facts(model):
        return Graph(model)
    light, bulk = weights.detach(model)
    normalise(light)
    light = inline_local_functions(sort_nodes(light))
    lift_constants(light, bulk)
    before = {node.op_type for node in light.graph.node}
    claim_premature(light)
    set_aside(light)
    light = convert_opset(light)
    bring_back(light)
    lift_constants(light, bulk)  # those that the converter made
    graph = Graph(light, bulk)
    decompose(graph, DECOMPOSED)
    settle_inference_mode(graph)
    rewritten = before - {node.op_type for node in graph.nodes}
    remove_identities(graph)
    fold_constants(graph, shapes=False)
    if resolve_branches(graph):
        decompose(graph, DECOMPOSED)  # what was inside
        settle_inference_mode(graph)
        remove_identities(graph)
        fold_constants(graph, shapes=False)
    make_pads_explicit(graph)
    straighten_views(graph)
    reached = free_batch(graph) if batch == "free" else "keep"
    fold_constants(graph)
    straighten_views(graph)
    nest_concats(graph)
    widened = widen(graph)
    remove_identities(graph)
    make_unsigned(graph, shared=any(op in rewritten for _, op in INTEGER))
    graph.metadata[KEY] = write_stamp(reached, widened, rewritten)
    return graph
