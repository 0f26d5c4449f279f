"""What of a model is explained: the tensor, the number taken of it, its classes and layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import TypeAlias

import onnx

import graph_rewrites as gr
from analyzer.errors import UsageError
from analyzer.rewriting import rewriting
from analyzer.targets import Classes

Layers: TypeAlias = "str | int | Sequence[str | int] | None"


@dataclass(frozen=True)
class Explained:
    """One tensor under one objective.

    Attributes:
        output: The output or inner tensor as the caller named it; None for the model's own scores.
        objective: "class", "mask", "box" or "similarity".
        scores: The tensor, its class axis, and what was peeled off to find it.
        classes: How many classes, and their names.
        layers: Every tensor that a CAM can use.
    """

    output: str | None
    objective: str
    scores: gr.Scores
    classes: Classes
    layers: tuple[gr.FeatureMap, ...]

    @property
    def default_layer(self) -> str | None:
        """The path of the layer that CAM methods take where none is named."""
        return next((m.name for m in self.layers if m.default), None)

    def layer_names(self, asked: Layers) -> tuple[str, ...]:
        """Layers as they are looked up and recorded: an index becomes the layer's name.

        Args:
            asked: Names, and indices among `layers`; as text an index has to be one that the
                layer has.

        Raises:
            UsageError: An index out of range, or something that is neither a name nor an index.
        """
        if asked is None:
            return ()
        several = [asked] if isinstance(asked, str) or not isinstance(asked, Sequence) else asked
        return tuple(self._layer_name(layer) for layer in several)

    def _layer_name(self, asked: str | int) -> str:
        count = len(self.layers)
        if isinstance(asked, str):
            numbers = {str(i - count): m for i, m in enumerate(self.layers)}
            numbers |= {str(m.index): m for m in self.layers}
            return numbers[asked].name if asked in numbers else asked
        try:
            return self.layers[index(asked)].name
        except (TypeError, IndexError) as error:
            raise UsageError(
                f"layer {asked!r}: give the name of a layer, or its index, {-count} to {count - 1}"
            ) from error


def find_explained(
    model: onnx.ModelProto,
    name: str,
    output: str | None,
    objective: str | None,
    labels: tuple[str, ...] | None,
) -> Explained:
    """Find what is explained.

    Args:
        model: The canonical model.
        name: The model's name, for messages.
        output: An output, an inner tensor or a layer path; None for the class scores, or for the
            one output that suits the objective.
        objective: None lets the tensor decide: one score per class; else the scores of a map,
            summed over a mask; else those of a box.
        labels: The model's class names; another tensor keeps them where their number fits.

    Raises:
        UsageError: No tensor of this name, or its number of classes is not that of the names.
        ModelRejectedError: No tensor suits.
    """
    with rewriting(name):
        scores = gr.scores(model, output, objective)
        if objective is None:
            objective = {0: "class", 2: "mask"}.get(len(scores.position_axes), "box")
            if objective == "box":
                scores = gr.scores(model, output, objective)
        layers = gr.feature_maps(model, output, objective)
    own = output is None and objective != "similarity"
    fits = labels is not None and len(labels) == scores.classes
    classes = Classes(scores.classes, labels if own or fits else None)
    classes.check(name)
    return Explained(output, objective, scores, classes, layers)
