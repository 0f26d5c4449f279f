"""What of a model is explained: the tensor, the number taken of it, its classes and layers."""

from dataclasses import dataclass

import onnx

import graph_rewrites as gr
from analyzer.rewriting import rewriting
from analyzer.targets import Classes


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
        return next((m.path or m.tensor for m in self.layers if m.default), None)


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
