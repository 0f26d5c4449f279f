"""What the model itself says: its own output, read as one value for each class."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from analyzer.targets import Classes

if TYPE_CHECKING:
    from graph_rewrites.scores import Scores


Kind = Literal["probability", "log-probability", "score"]

_KINDS: dict[str, Kind] = {
    "softmax": "probability",
    "sigmoid": "probability",
    "log_softmax": "log-probability",
    "none": "score",
}


@dataclass(frozen=True)
class Ranked:
    """One class in a ranking."""

    index: int
    label: str
    value: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The model's output for N images.

    Attributes:
        values: (N, C) float32; integers are dequantised.
        kind: What the values are: the file's own output, nothing is applied to it.
        classes: Names.
    """

    values: npt.NDArray[np.float32]
    kind: Kind
    classes: Classes

    def top(self, k: int = 5) -> list[list[Ranked]]:
        """The k largest of each image, largest first."""
        order = np.argsort(-self.values, axis=1, kind="stable")[:, :k]
        return [
            [Ranked(int(i), self.classes.label(int(i)), float(row[i])) for i in indices]
            for row, indices in zip(self.values, order, strict=True)
        ]


def read_prediction(
    model: onnx.ModelProto, scores: "Scores", output: npt.NDArray[Any], classes: Classes
) -> Prediction:
    """Read the output that the scores belong to.

    Args:
        model: The model, for the quantisation of an integer output.
        scores: Which output, and what lies between it and the scores.
        output: The output's array, (N, …) with one value for each class.
        classes: Names.
    """
    values = output.reshape(len(output), -1).astype(np.float32)
    if output.dtype.kind in "iu":
        scale, zero_point = _quantisation(model, scores.output)
        values = (values - zero_point) * scale
    if scores.link == "sigmoid" and values.shape[1] == 1:
        values = np.concatenate([1 - values, values], axis=1)
    rescaled = {"Add", "Sub", "Mul", "Div"} & set(scores.peeled)  # percent, for example
    return Prediction(values, "score" if rescaled else _KINDS[scores.link], classes)


def _quantisation(model: onnx.ModelProto, tensor: str) -> tuple[np.float32, np.float32]:
    """Scale and zero point of the QuantizeLinear that makes `tensor`, seen through reshapes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    while (node := makers.get(tensor)) and node.op_type in ("Reshape", "Identity", "Squeeze"):
        tensor = node.input[0]
    stored = {t.name: t for t in model.graph.initializer}
    if node is None or node.op_type != "QuantizeLinear" or node.input[1] not in stored:
        return np.float32(1), np.float32(0)
    scale = numpy_helper.to_array(stored[node.input[1]])
    zero = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.zeros(1)
    return np.float32(scale.reshape(-1)[0]), np.float32(zero.reshape(-1)[0])
