"""What is verified: a model, its explanation model, and the pictures that they are run on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

import graph_rewrites as gr
from analyzer.errors import AnalyzerError, ModelRejectedError
from analyzer.explained import Explained
from analyzer.image_input import ImageInput, ModelInput, asked_input, model_inputs
from analyzer.model import Analyzer
from analyzer.pictures import Picture
from analyzer.preprocess import Preprocess
from analyzer.rewriting import rewriting
from analyzer.session import Session

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

# The first that runs is taken: sizes that a file leaves open are as small as its strides allow.
OPEN_SIDES: Final = (64, 128, 224, 448)
PATCHES: Final = 8  # along each side of a picture


@dataclass(frozen=True, eq=False)
class Subject:
    """A loaded model under verification.

    Attributes:
        loaded: The model.
        explained: The tensor whose gradient is verified.
        rules: The rules of its backward graph.
        layer: The layer of the CAM and of the second gradient; None where there is none.
        explanation: The explanation model, for the gradient and, with a layer, Grad-CAM.
        pictures: (N, …), all different, in the model's layout and type, N at least 2.
    """

    loaded: Analyzer
    explained: Explained
    rules: gr.RuleTable
    layer: str | None
    explanation: onnx.ModelProto
    pictures: Array

    @classmethod
    def of(
        cls, loaded: Analyzer, output: str | None, layer: str | None, rules: gr.RuleTable
    ) -> "Subject":
        """Build the explanation model, and find the smallest pictures that the model takes.

        Raises:
            ModelRejectedError: The model does not run, or cannot be differentiated.
            UsageError: There is no such output or layer.
        """
        pictures = _smallest_pictures(loaded)
        _ = loaded.batch  # its proof may exchange the model for one with a fixed batch
        explained = loaded.explained(output)
        layer = next(iter(explained.layer_names(layer)), explained.default_layer)
        with rewriting(loaded.name):
            explanation = gr.explanation_model(
                loaded.model,
                method="gradient" if layer is None else ("gradient", "grad_cam"),
                layer=layer,
                rules=rules,
                of=output,
                objective=explained.objective,
            )
        return cls(loaded, explained, rules, layer, explanation, pictures)

    @property
    def image(self) -> str:
        """The name of the input that takes the pictures."""
        return self.loaded.image.name

    @property
    def file_batch(self) -> int | None:
        """The batch that the file itself insists on."""
        return _leading(self.loaded.inputs)

    @property
    def fixed_batch(self) -> int | None:
        """The batch that the canonical model insists on; None where any number may run."""
        return _leading(model_inputs(self.loaded.model))

    def batches(self, size: int | None = None) -> Iterator[Array]:
        """All pictures in batches of `size`, by default as many as the canonical model takes."""
        step = size or self.fixed_batch or len(self.pictures)
        for start in range(0, len(self.pictures) - step + 1, step):
            yield self.pictures[start : start + step]

    def feeds(self, images: Array) -> dict[str, Array]:
        """Inputs of the explanation model: neighbours are explained for different classes.

        Of many places all are explained: the whole picture, or each class's best box.
        """
        count, layout = len(images), self.loaded.image.layout
        targets = np.arange(count, dtype=np.int64) % (self.explained.classes.count or 1)
        feeds = {"target": targets}
        if self.explained.objective == "mask":
            size = images.shape[2:] if layout == "NCHW" else images.shape[1:3]
            feeds["mask"] = np.ones((count, *size), np.float32)
        elif self.explained.objective == "box":
            feeds["box"] = np.full(count, -1, np.int64)
        asked = {asked_input(self.explanation, name): value for name, value in feeds.items()}
        return {self.image: images, **asked}


def _smallest_pictures(loaded: Analyzer) -> Array:
    """Pictures for one batch of the file, at least two, as small as the original runs on."""
    original, image = Session(loaded.original), loaded.image
    batch = _leading(loaded.inputs)
    count = max(2, batch or 0)
    sides = OPEN_SIDES if None in (image.height, image.width) else (0,)
    failure = ""
    for side in sides:
        made = _draw(image, loaded.preprocess, count, (image.height or side, image.width or side))
        try:
            original.run({image.name: made[: batch or 1]})
        except AnalyzerError as error:
            failure = str(error)
        else:
            return made
    raise ModelRejectedError(f"{loaded.name}: the model does not run on any picture: {failure}")


def _leading(inputs: tuple[ModelInput, ...]) -> int | None:
    leading = (inputs[0].shape or ("?",))[0]
    return leading if isinstance(leading, int) else None


def _draw(image: ImageInput, preprocess: Preprocess, count: int, size: tuple[int, int]) -> Array:
    """Preprocessed patchwork with noise: a network tells two of these apart, but not two noises."""
    rng = np.random.default_rng(0)
    if image.channels != len(preprocess.channels):
        return rng.standard_normal(image.shape(count, *size)).astype(image.dtype)
    rows, columns = (np.arange(side) * PATCHES // side for side in size)
    colours = rng.integers(0, 206, (count, PATCHES, PATCHES, 3))
    pixels = colours[:, rows[:, None], columns] + rng.integers(0, 50, (count, *size, 3))
    fitted = replace(preprocess, size=size)
    drawn = (Picture("noise", one, "", "pixels", "noise") for one in pixels.astype(np.uint8))
    return np.stack([fitted.apply(picture, image)[0] for picture in drawn])
