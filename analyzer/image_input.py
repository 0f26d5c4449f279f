"""The image input of a model: which one it is, its layout, channels and size."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx

from analyzer.errors import ModelRejectedError
from graph_rewrites.stamps import SWEEPS_KEY

Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class ModelInput:
    """A graph input or output: dtype as numpy spells it; open dimensions by name, or "?"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class ImageInput:
    """The input that takes pictures; height and width are None where the file leaves them open."""

    name: str
    dtype: str
    layout: Layout
    channels: int
    height: int | None
    width: int | None

    def shape(self, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The full shape, in the model's layout."""
        if self.layout == "NCHW":
            return batch, self.channels, height, width
        return batch, height, width, self.channels


def model_inputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs that a caller feeds: initializers that old files list as inputs are left out."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return tuple(_describe(v) for v in model.graph.input if v.name not in stored)


def model_outputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The graph's outputs."""
    return tuple(_describe(v) for v in model.graph.output)


def _describe(value: onnx.ValueInfoProto) -> ModelInput:
    tensor = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError):
        dtype = "unknown"
    if not tensor.HasField("shape"):
        return ModelInput(value.name, dtype, None)
    sizes = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or "?"
        for d in tensor.shape.dim
    )
    return ModelInput(value.name, dtype, tuple(sizes))


def asked_input(model: onnx.ModelProto, name: str) -> str:
    """The input `name` that an explanation model adds, by the name that was free for it."""
    free = f"asked/{name}"
    return free if any(value.name == free for value in model.graph.input) else name


def find_image_input(
    model: onnx.ModelProto, layout: Layout | None = None, name: str = "the model"
) -> ImageInput:
    """The one input that takes pictures.

    Args:
        model: Any model with one input of four dimensions.
        layout: Settles a file whose shapes leave the channel axis open.
        name: The model's name, for messages.

    Raises:
        ModelRejectedError: There is no such input, there is a second input, or the layout is open.
    """
    found = _only_input(model, name)
    shape = found.shape
    numeric = found.dtype.startswith(("float", "uint", "int", "bfloat16"))
    if shape is None or len(shape) != 4 or not numeric:
        shown = "unknown" if shape is None else list(shape)
        raise ModelRejectedError(
            f"{name}: input {found.name!r} ({found.dtype}, shape {shown}) takes no image: "
            "four dimensions, (N, C, H, W) or (N, H, W, C), are needed"
        )
    chosen = layout or _layout(model, found.name, shape, name)
    channels, height, width = shape[1:] if chosen == "NCHW" else (shape[3], *shape[1:3])
    if not isinstance(channels, int):
        raise ModelRejectedError(
            f"{name}: input {found.name!r} {list(shape)}: the number of channels is open; "
            "fix it there"
        )
    return ImageInput(
        found.name,
        found.dtype,
        chosen,
        channels,
        height if isinstance(height, int) else None,
        width if isinstance(width, int) else None,
    )


def _only_input(model: onnx.ModelProto, name: str) -> ModelInput:
    inputs = model_inputs(model)
    if len(inputs) == 1:
        return inputs[0]
    if not inputs:
        raise ModelRejectedError(
            f"{name}: it has no input, and one that takes pictures is needed; export the model "
            "with its input"
        )
    listed = ", ".join(repr(i.name) for i in inputs)
    if any(entry.key == SWEEPS_KEY for entry in model.metadata_props):
        raise ModelRejectedError(
            f"{name}: it is an explanation model already (inputs {listed}); give the original "
            "model that it was made from"
        )
    raise ModelRejectedError(
        f"{name}: it has {len(inputs)} inputs ({listed}), and only one, for pictures, can be used; "
        "bind the others to constants first"
    )


def _layout(model: onnx.ModelProto, tensor: str, shape: tuple[int | str, ...], name: str) -> Layout:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first != last:
        return "NCHW" if first else "NHWC"
    followed = _layout_by_use(model, tensor)
    if followed is not None:
        return followed
    raise ModelRejectedError(
        f"{name}: input {tensor!r} {list(shape)}: cannot tell which axis holds the channels; "
        'say layout = "NCHW" or "NHWC" in the preprocessing'
    )


def _layout_by_use(model: onnx.ModelProto, name: str) -> Layout | None:
    """A convolution reads channels first; a Transpose before it says that they come last."""
    for node in _users(model, name):
        if node.op_type in ("Conv", "QLinearConv", "ConvInteger", "FusedConv", "MaxPool"):
            return "NCHW"
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
            if perm == [0, 3, 1, 2]:
                return "NHWC"
    return None


def _users(model: onnx.ModelProto, name: str) -> Iterator[onnx.NodeProto]:
    """Nodes behind `name`, nearest first, seen through operators that keep the layout."""
    transparent = {
        "Cast", "Mul", "Sub", "Add", "Div", "QuantizeLinear", "DequantizeLinear", "Identity",
        "BatchNormalization", "Pad", "Clip",
    }  # fmt: skip
    queue, seen = deque([name]), {name}
    while queue:
        tensor = queue.popleft()
        for node in model.graph.node:
            if tensor not in node.input:
                continue
            yield node
            if node.op_type in transparent and node.output[0] not in seen:
                seen.add(node.output[0])
                queue.append(node.output[0])
