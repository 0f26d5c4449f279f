"""The same function, faster on one provider.

The rules write the backward graph for clarity, and for every runtime. What one provider runs faster
in another form is replaced here, pattern by pattern: `cpu` and `cuda` are the tables, `pattern`
says what a pattern is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx

from graph_rewrites.canonical.folding import fold_constants
from graph_rewrites.graph import Graph
from graph_rewrites.lowering.constants import share_constants
from graph_rewrites.lowering.cpu import CPU
from graph_rewrites.lowering.cuda import CUDA
from graph_rewrites.lowering.half import half_product
from graph_rewrites.lowering.pattern import Pattern, apply
from graph_rewrites.lowering.separation import separate_targets
from graph_rewrites.lowering.specialization import specialize
from graph_rewrites.stamps import LOWERED_KEY, refuse_lowered

PROVIDERS: Mapping[str, tuple[Pattern, ...]] = MappingProxyType(
    {"portable": (), "cpu": CPU, "cuda": CUDA}
)
"""The patterns of each provider."""

_log = logging.getLogger(__name__)


def lower(
    model: onnx.ModelProto,
    provider: str = "cpu",
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    float16: bool = False,
) -> onnx.ModelProto:
    """Write a differentiated model in the form that one provider runs fastest.

    Inputs and outputs stay, and so do their values but for rounding. It comes last: a lowered model
    can be run, but not be differentiated or lowered again.

    Args:
        model: what `differentiate` or `explanation_model` returned.
        provider: "cpu" or "cuda"; "portable" changes no operator.
        shapes: fixes the shapes of inputs that are symbolic. Most patterns for the CPU need them:
            the runtime stays in its blocked layout only where shapes are provably equal.
        float16: whether products with weights are computed in float16, about three decimal digits;
            for "cuda" alone.

    Raises:
        ModelError: the model is lowered already.
        UnknownTensorError: `shapes` names no input.
        ValueError: an unknown provider, one that has no `float16`, or a shape that contradicts the
            declared one.
    """
    return lowered_graph(model, provider, shapes, float16=float16).export()


def lowered_graph(
    model: onnx.ModelProto,
    provider: str,
    shapes: Mapping[str, Sequence[int]] | None,
    *,
    float16: bool = False,
) -> Graph:
    """What `lower` writes, before its weights are copied; see there."""
    if provider not in PROVIDERS:
        raise ValueError(f"provider must be one of {', '.join(PROVIDERS)}, not {provider!r}")
    if float16 and provider != "cuda":
        raise ValueError(f"float16 is for the provider 'cuda', not {provider!r}")
    graph = Graph(model)
    refuse_lowered(graph.metadata)
    if shapes:
        specialize(graph, shapes)
        if provider == "cpu":
            separate_targets(graph)
        fold_constants(graph)
        share_constants(graph)
    counts = apply(graph, (*PROVIDERS[provider], *([half_product] if float16 else [])))
    _log.debug("lowered for %s: %s", provider, counts)
    if provider != "portable":
        graph.metadata[LOWERED_KEY] = provider
    return graph
