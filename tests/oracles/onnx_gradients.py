"""The same gradients from a differentiated ONNX model in the runtime, with its kinks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime

import graph_rewrites as gr
from graph_rewrites.stamps import PREFIX_KEY
from tests.oracles.torch_export import INPUT
from tests.oracles.torch_gradients import Gradients, Kink, clip_state, hard_state, relu_state


class OnnxGradients:
    """A network's gradients at its images and at its default CAM layer, as the runtime has them.

    Args:
        model: as a framework exported it.
        relu: the ReLU rule.
    """

    def __init__(self, model: onnx.ModelProto, relu: str = "gradient") -> None:
        canonical = gr.canonicalize(model)
        (default,) = [found for found in gr.feature_maps(canonical) if found.default]
        self.layer = default.tensor
        self.scores = gr.scores(canonical).tensor
        self.model = gr.differentiate(canonical, wrt=[INPUT, self.layer], relu=relu)
        observed = onnx.ModelProto()
        observed.CopyFrom(self.model)
        self._watched = dict(_watch(observed))
        known = {value.name for value in observed.graph.output}
        for name in {self.layer, *self._watched} - known:
            index = name in self._watched and self._watched[name].op_type == "MaxPool"
            element = onnx.TensorProto.INT64 if index else onnx.TensorProto.FLOAT
            observed.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
        self._session = session(observed)

    def __call__(self, images: np.ndarray, ct: np.ndarray) -> Gradients:
        """The backward pass for images (N, 3, H, W) and cotangents (N, classes)."""
        names = [f"grad/{INPUT}", f"grad/{self.layer}"]
        names += [name for name in {self.layer, *self._watched} if name not in names]
        feeds = {INPUT: images.astype(np.float32), "cotangent": ct.astype(np.float32)}
        values = dict(zip(names, self._session.run(names, feeds), strict=True))
        kinks = [_kink(self.model, node, values[name]) for name, node in self._watched.items()]
        return Gradients(
            values[f"grad/{INPUT}"].astype(np.float64),
            values[f"grad/{self.layer}"].astype(np.float64),
            values[self.layer].astype(np.float64),
            tuple(kinks),
        )


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A CPU session at default optimisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _watch(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Each kink of the forward graph with the tensor that tells its state."""
    for node in model.graph.node:
        if any(entry.key == PREFIX_KEY for entry in node.metadata_props):
            continue
        if node.op_type in ("Relu", "Clip"):
            yield node.output[0], node
        elif node.op_type in ("HardSwish", "HardSigmoid"):
            yield node.input[0], node
        elif node.op_type == "MaxPool":
            if len(node.output) == 1:
                node.output.append(f"{node.output[0]}/kink")
            yield node.output[1], node


def _kink(model: onnx.ModelProto, node: onnx.NodeProto, value: np.ndarray) -> Kink:
    if node.op_type == "Relu":
        return Kink("relu", relu_state(value))
    if node.op_type == "Clip":
        (top,) = (w for w in model.graph.initializer if w.name == node.input[2])
        return Kink("clip", clip_state(value, float(onnx.numpy_helper.to_array(top))))
    if node.op_type == "MaxPool":  # ONNX counts through the batch, PyTorch within a plane
        return Kink("max", value)
    return Kink("hard", hard_state(value))
