"""What is explained: a tensor, and the kind of number that is taken of it.

::

    objective    the tensor               the number                           chosen by
    class        (N, C)                   the score of a class                 target
    mask         (N, C, h, w), (N, h, w, C)   a class's scores, summed over a mask   target, mask
    box          (N, A, C), (N, C, A), …  the score of a class in a box        target, box
    similarity   (N, …)                   the cosine to another embedding      reference

The tensor is an output, seen through softmax, sigmoid and quantisation, or any tensor or layer
inside the network, taken as it is.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import onnx

from graph_rewrites.canonical import open_canonical
from graph_rewrites.errors import ModelError, UnknownShapeError, UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.image_axis import (
    must_keep_images_apart,
    of_remedy,
    output_must_keep_images_apart,
)
from graph_rewrites.layers import FeatureMap, find_feature_maps, resolve
from graph_rewrites.network import carries_values, network_inputs, network_outputs
from graph_rewrites.score_axes import described
from graph_rewrites.scores import Scores, find_scores, scores_of, scores_of_tensor, warn_of_doubts
from graph_rewrites.tensor_type import Dim

OBJECTIVES = ("class", "mask", "box", "similarity")


def scores(
    model: onnx.ModelProto, output: str | None = None, objective: str | None = None
) -> Scores:
    """`find_explained` of a model, in its canonical form."""
    return find_explained(open_canonical(model), output, objective)


def feature_maps(
    model: onnx.ModelProto, of: str | None = None, objective: str | None = None
) -> tuple[FeatureMap, ...]:
    """`find_feature_maps` of a model, in its canonical form.

    Args:
        model: the model.
        of: the tensor that is explained; by default the class scores.
        objective: a name in `OBJECTIVES`, or None.
    """
    graph = open_canonical(model)
    if of is None and objective is None:
        try:
            return find_feature_maps(graph, find_explained(graph))
        except ModelError:
            return find_feature_maps(graph)
    return find_feature_maps(graph, find_explained(graph, of, objective))


def find_explained(graph: Graph, of: str | None = None, objective: str | None = None) -> Scores:
    """The tensor that is explained, and which of its axes count classes and places.

    Args:
        graph: the canonical graph.
        of: an output, a tensor, or a layer path. By default the class scores; where no output
            holds them, or the objective asks for more than classes, the one output that fits.
        objective: a name in `OBJECTIVES`; None for whatever the tensor offers: one score per
            class, or scores at many places.

    Raises:
        ValueError: an unknown objective.
        UnknownTensorError: nothing is named `of`.
        UnknownShapeError: the number of classes, or the size of an embedding, is not known.
        ModelError: the tensor does not suit the objective, or several outputs do.
    """
    if objective not in (None, *OBJECTIVES):
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
    if objective == "similarity":
        return _embedding(graph, of)
    found = _by_default(graph, objective) if of is None else _named(graph, of)
    if objective == "class" and found.position_axes:
        raise ModelError(
            f"tensor {found.tensor!r} {described(graph.shape(found.tensor))} holds scores at many "
            "places, not one per class; explain them over a mask or in a box"
        )
    if objective in ("mask", "box") and not found.position_axes:
        raise ModelError(
            f"tensor {found.tensor!r} {described(graph.shape(found.tensor))} has no places that a "
            f"{objective} could choose; leave the {objective} out"
        )
    if objective == "mask" and len(found.position_axes) != 2:
        raise ModelError(
            f"tensor {found.tensor!r} {described(graph.shape(found.tensor))} has no height and "
            "width, so no mask fits it; name a map of scores, or choose a box"
        )
    if objective == "box":  # every class of a box stands for itself, one behind a sigmoid too
        return replace(found, classes=_class_size(graph, found))
    return found


def _class_size(graph: Graph, found: Scores) -> int:
    size = (graph.shape(found.tensor) or ())[found.class_axis or 0]
    return size if isinstance(size, int) else found.classes


def _by_default(graph: Graph, objective: str | None) -> Scores:
    """The class scores; for the other objectives the one output with scores at many places."""
    refused: ModelError | None = None
    if objective in (None, "class"):
        try:
            return find_scores(graph)
        except ModelError as error:
            if objective == "class":
                raise
            refused = error
    found: list[Scores] = []
    for name in network_outputs(graph):
        if graph.is_float(name):
            try:
                found.append(scores_of(graph, name))
            except ModelError:
                continue
    found = [candidate for candidate in found if candidate.position_axes]
    if len(found) == 1:
        warn_of_doubts(graph, found[0])
        return found[0]
    if refused is not None:
        raise refused
    listed = ", ".join(f"{c.output!r} {described(graph.shape(c.output))}" for c in found)
    raise ModelError(
        f"{'several outputs hold' if found else 'no output holds'} scores at many places"
        f"{f' ({listed})' if found else ''}; {of_remedy(graph)}"
    )


def _named(graph: Graph, of: str) -> Scores:
    if of in network_outputs(graph):
        return scores_of(graph, of)
    tensor = _inner(graph, of)
    must_keep_images_apart(graph, tensor, of)
    return scores_of_tensor(graph, tensor)


def _inner(graph: Graph, of: str) -> str:
    """The tensor named `of` inside the network, by its own name or that of its layer."""
    tensor = resolve(graph, of).gradient_at
    if tensor in network_inputs(graph) or not carries_values(graph, tensor):
        raise UnknownTensorError(
            f"{of!r} is no value that the network computes in floating point or quantised; "
            "name an output or a tensor between the picture and an output"
        )
    return tensor


def _embedding(graph: Graph, of: str | None) -> Scores:
    """The tensor that is compared: as it is, all its axes behind the batch together."""
    outputs = network_outputs(graph)
    if of is None:
        floats = [name for name in outputs if graph.is_float(name)]
        if len(floats) != 1:
            listed = ", ".join(map(repr, floats)) or "none"
            raise ModelError(
                f"the model has {len(floats)} floating-point outputs ({listed}); "
                "name the embedding with `of`"
            )
        of = floats[0]
    tensor = of if of in outputs else _inner(graph, of)
    if of in outputs:
        output_must_keep_images_apart(graph, of)
    else:
        must_keep_images_apart(graph, tensor, of)
    embedding_size(graph, tensor)
    return Scores(tensor, None, 1, (), of, "none")


def embedding_size(graph: Graph, tensor: str) -> int:
    """D, the number of elements of an image's embedding.

    Raises:
        UnknownShapeError: it is not fixed.
        ModelError: there is only one number, or no axis for the images.
    """
    dims: tuple[Dim, ...] = graph.known_shape(tensor)[1:]
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if len(sizes) != len(dims):
        raise UnknownShapeError(
            f"tensor {tensor!r} {described(graph.shape(tensor))} does not tell the size of the "
            "embedding; declare the shape of the model's output"
        )
    if prod(sizes) < 2:
        raise ModelError(
            f"tensor {tensor!r} {described(graph.shape(tensor))} holds one number for each image, "
            "no embedding; the cosine of two numbers says nothing"
        )
    return prod(sizes)
