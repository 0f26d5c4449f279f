"""Models for the tests of this folder: small ones as text, real ones from the onnx wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

_LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT = sorted(path.stem.removeprefix("light_") for path in _LIGHT.glob("*.onnx"))
"""Names of the real architectures that the onnx wheel carries with constant weights."""


def light(name: str) -> onnx.ModelProto:
    """A real architecture whose weights are all alike."""
    return onnx.load(_LIGHT / f"light_{name}.onnx")


def with_random_weights(model: onnx.ModelProto, largest: int = 5_000_000) -> onnx.ModelProto:
    """Give a light model weights that differ: where all are alike, so are all images and classes.

    Weights of more than `largest` elements stay as they are.
    """
    rng = np.random.default_rng(0)
    random = onnx.ModelProto()
    random.CopyFrom(model)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None or np.prod(shape) > largest:
            kept.append(node)
            continue
        if len(shape) > 1:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = rng.uniform(0.5, 1.5, shape)  # variances too
        random.graph.initializer.append(
            numpy_helper.from_array(value.astype(np.float32), node.output[0])
        )
    del random.graph.node[:]
    random.graph.node.extend(kept)
    random.ir_version = max(4, model.ir_version)  # before, every initializer had to be an input
    return random


def graph_of(
    text: str, opset: int = 18, ir_version: int = 10, **initializers: np.ndarray
) -> onnx.ModelProto:
    """A model from the text of its graph in ONNX's own notation, with initializers added."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "my" : 1]>\n'
    model = parser.parse_model(header + text)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in initializers.items()
    )
    return model
