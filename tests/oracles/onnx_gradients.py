"""The same gradients from a differentiated ONNX model in the runtime, with its kinks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx

import graph_rewrites as gr
from analyzer.session import Session
from graph_rewrites.stamps import PREFIX_KEY
from tests.oracles.passes import NOTHING, Gradients, Kink, clip_state, hard_state, relu_state

INPUT, OUTPUT = "input", "logits"


class OnnxGradients:
    """A network's gradients at its images and at its default CAM layer, as the runtime has them.

    Args:
        model: as a framework exported it.
        relu: the ReLU rule.
        of: the tensor that is differentiated; by default the class scores.

    Attributes:
        layer: the default CAM layer; None where the model has none.
        model: the differentiated model.
    """

    def __init__(
        self, model: onnx.ModelProto, relu: str = "gradient", of: str | None = None
    ) -> None:
        canonical = gr.canonicalize(model)
        self.layer = next((m for m in gr.feature_maps(canonical) if m.default), None)
        layer = [] if self.layer is None else [self.layer.tensor]
        self.model = gr.differentiate(canonical, wrt=[INPUT, *layer], of=of, relu=relu)
        observed = onnx.ModelProto()
        observed.CopyFrom(self.model)
        self._watched = dict(_watch(observed))
        known = {value.name for value in observed.graph.output}
        for name in dict.fromkeys(n for n in (*layer, *self._watched) if n not in known):
            index = name in self._watched and self._watched[name].op_type == "MaxPool"
            element = onnx.TensorProto.INT64 if index else onnx.TensorProto.FLOAT
            observed.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
        self._observed = observed
        (seed,) = (i for i in self.model.graph.input if i.name == "cotangent")
        dims = seed.type.tensor_type.shape.dim[1:]
        self._inner_shape = [dim.dim_value or -1 for dim in dims]

    @cached_property
    def _session(self) -> Session:
        return session(self._observed)

    def __call__(self, images: np.ndarray, ct: np.ndarray) -> Gradients:
        """The backward pass for a batch of images and cotangents of what is differentiated.

        Cotangents (N, C) fit scores of one position as well, (N, C, 1, 1) or (N, 1, 1, C).
        """
        return self._pass(self._session, self._feeds(images, ct))

    def lowered(self, images: np.ndarray, ct: np.ndarray) -> Gradients:
        """The same pass of the model lowered for the CPU and these shapes.

        The portable model's session is closed: of the largest models two do not fit into memory.
        """
        self.__dict__.pop("_session", None)
        feeds = self._feeds(images, ct)
        shapes = {name: value.shape for name, value in feeds.items()}
        return self._pass(session(self.lowered_model(shapes)), feeds)

    def lowered_model(self, shapes: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
        """What is lowered, for inputs of these shapes: the gradients, kinks and the layer."""
        return gr.lower(self._observed, "cpu", shapes)

    def _feeds(self, images: np.ndarray, ct: np.ndarray) -> dict[str, np.ndarray]:
        ct = ct.astype(np.float32).reshape(len(ct), *self._inner_shape)
        return {INPUT: images.astype(np.float32), "cotangent": ct}

    def _pass(self, opened: Session, feeds: dict[str, np.ndarray]) -> Gradients:
        wanted = [f"grad/{INPUT}"]
        if self.layer is not None:
            wanted += [f"grad/{self.layer.tensor}", self.layer.tensor]
        names = list(dict.fromkeys((*wanted, *self._watched)))
        values = opened.run(feeds, names)
        kinks = [_kink(self.model, node, values[name]) for name, node in self._watched.items()]
        image, *layer = (values[name].astype(np.float64) for name in wanted)
        return Gradients(image, *(layer or [NOTHING, NOTHING]), tuple(kinks))


def session(model: onnx.ModelProto) -> Session:
    """A CPU session at default optimisation; weights may lie in the model's file."""
    return Session(model, threads=2)


def _watch(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Each kink of the forward graph with the tensor that tells its state."""
    for node in model.graph.node:
        if any(entry.key == PREFIX_KEY for entry in node.metadata_props):
            continue
        if node.op_type == "Relu" or (node.op_type == "Clip" and all(_bounds(node))):
            yield node.output[0], node
        elif node.op_type in ("HardSwish", "HardSigmoid", "LeakyRelu", "PRelu"):
            yield node.input[0], node
        elif node.op_type == "MaxPool":
            if len(node.output) == 1:
                node.output.append(f"{node.output[0]}/kink")
            yield node.output[1], node


def _bounds(node: onnx.NodeProto) -> tuple[str, str]:
    """Names of a Clip's bounds, "" where there is none: then it keeps a norm off 0, no more."""
    _, low, high, *_ = (*node.input, "", "")
    return low, high


def _kink(model: onnx.ModelProto, node: onnx.NodeProto, value: np.ndarray) -> Kink:
    if node.op_type == "Relu":
        return Kink("relu", relu_state(value))
    if node.op_type in ("LeakyRelu", "PRelu"):
        return Kink("leaky", relu_state(value))
    if node.op_type == "Clip":
        (top,) = (w for w in model.graph.initializer if w.name == _bounds(node)[1])
        return Kink("clip", clip_state(value, float(onnx.numpy_helper.to_array(top))))
    if node.op_type == "MaxPool":  # ONNX counts through the batch, PyTorch within a plane
        return Kink("max", value)
    return Kink("hard", hard_state(value))


def resized(
    model: onnx.ModelProto, size: int, spatial_axes: tuple[int, int] = (2, 3)
) -> onnx.ModelProto:
    """A copy of an export that takes pictures of another size.

    Right only for networks whose graph holds no size: exporting them again gives the same nodes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    dims = copy.graph.input[0].type.tensor_type.shape.dim
    for axis in spatial_axes:
        dims[axis].dim_value = size
    return copy
