"""Weights in files beside the model: the small ones loaded, the large ones left where they are.

Their tensors name the file by its absolute path; graph rewriting passes them on unread, and
`Session` reads them.
"""

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy.typing as npt
import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from analyzer.errors import ModelRejectedError
from graph_rewrites.weights import values

LARGE: Final = 2**16
"""Weights of more bytes stay in their files."""
ROOT: Final = Path.cwd().anchor
_in_memory: WeakValueDictionary[tuple[Any, ...], npt.NDArray[Any]] = WeakValueDictionary()
_PACKED: Final = {"FLOAT4E2M1": 4, "INT2": 2, "INT4": 4, "UINT2": 2, "UINT4": 4}
"""Bits of one element, of the types that are stored several to a byte."""


def load(model: onnx.ModelProto, path: Path) -> dict[str, str]:
    """Load the small external weights of a model, from its own folder only, in place.

    Returns:
        The sha256 of each external file, the model's own left out, by its name in the model.

    Raises:
        ModelRejectedError: A file is missing, too short or elsewhere.
    """
    found = [tensor for tensor in tensors(model) if is_external(tensor)]
    folder = path.resolve().parent
    names = sorted({_location(tensor) for tensor in found} - {str(path.resolve())})
    try:
        for tensor in found:
            _require_whole(tensor, folder)
        kept = {t.name for t in model.graph.initializer if _stays_out(t)}
        for tensor in found:
            if tensor.name in kept:
                _make_absolute(tensor, folder)
            else:
                load_external_data_for_tensor(tensor, str(folder))
        return {name: _hash(folder / name) for name in names}
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ModelRejectedError(
            f"{path}: external weights ({_listed(names)}) do not load: {reason[:200]}; "
            "keep them, whole, in the folder of the model"
        ) from error


def shared(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    """The values of a tensor that was left in its file, in memory once however many ask for them.

    Not to be written to.
    """
    info = ExternalDataInfo(tensor)
    key = (info.location, *stamp(Path(info.location)), info.offset, tensor.data_type, *tensor.dims)
    found = _in_memory.get(key)
    if found is None:
        found = _in_memory[key] = values(tensor)
    return found


def below_root(tensor: onnx.TensorProto) -> str:
    """The file of a tensor that was left in it, relative to `ROOT`; "" where that has none."""
    path = Path(ExternalDataInfo(tensor).location)
    return path.relative_to(ROOT).as_posix() if path.anchor == ROOT else ""


def bring_in(model: onnx.ModelProto) -> onnx.ModelProto:
    """Load, in place, what was left in its files; the model is then whole, and returned."""
    for tensor in filter(is_external, model.graph.initializer):
        tensor.raw_data = shared(tensor).tobytes()
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return model


def stamp(file: Path) -> tuple[int, ...]:
    """What is another when a file is written anew; () where there is none."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the values of a tensor lie in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor, those of subgraphs and of attributes included."""
    for graph in graphs(model):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and every subgraph."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g, *attribute.graphs]


def is_packed(tensor: onnx.TensorProto) -> bool:
    """Whether several elements share a byte."""
    return onnx.TensorProto.DataType.Name(tensor.data_type) in _PACKED


def size_of(tensor: onnx.TensorProto) -> int:
    """The bytes that the values of a tensor take."""
    bits = _PACKED.get(onnx.TensorProto.DataType.Name(tensor.data_type))
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(-(-prod(tensor.dims) * bits // 8))


def _stays_out(tensor: onnx.TensorProto) -> bool:
    return is_external(tensor) and size_of(tensor) > LARGE and not is_packed(tensor)


def _require_whole(tensor: onnx.TensorProto, folder: Path) -> None:
    """Check that a tensor's file lies in the folder and holds what the tensor needs.

    Raises:
        OSError: It is missing.
        ValueError: It lies elsewhere or is too short.
    """
    info, need = ExternalDataInfo(tensor), size_of(tensor)
    file = folder / info.location
    if not file.resolve(strict=True).is_relative_to(folder) or ".." in Path(info.location).parts:
        raise ValueError(f"{info.location!r} lies outside the folder of the model")
    begin, length = info.offset or 0, need if info.length is None else info.length
    if length != need or begin < 0 or begin + need > file.stat().st_size:
        raise ValueError(
            f"tensor {tensor.name!r} needs {need} bytes from byte {begin} of {info.location!r}, "
            f"which has {file.stat().st_size}"
        )


def _make_absolute(tensor: onnx.TensorProto, folder: Path) -> None:
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = str((folder / entry.value).resolve())


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _hash(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
