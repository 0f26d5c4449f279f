"""Files appear whole or not at all."""

import os
import secrets
from pathlib import Path

import onnx

from analyzer.errors import UsageError

_LARGEST = 2**31 - 2**28  # bytes of weights that fit into one protobuf message with all else


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename.

    Raises:
        UsageError: The folder does not exist or cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror or error}); choose another output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_model(path: Path, model: onnx.ModelProto) -> int:
    """Write a model; one of more than 2 GiB with its weights in "<name>.data" beside it.

    The folder is made where there is none.

    Returns:
        Bytes written.

    Raises:
        UsageError: It cannot be written.
    """
    make_folder(path.parent)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= _LARGEST:
        data = bytes(model.SerializeToString())
        write_atomically(path, data)
        return len(data)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = weights_beside(path)
    try:
        weights.unlink(missing_ok=True)  # onnx would append
        onnx.save_model(copy, path, save_as_external_data=True, location=weights.name)
        return path.stat().st_size + weights.stat().st_size
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror or error}); choose another output"
        ) from error


def weights_beside(path: Path) -> Path:
    """Where `write_model` puts the weights that do not fit into the file."""
    return path.with_name(f"{path.name}.data")


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        UsageError: It cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be made a folder ({error.strerror or error}); choose another output"
        ) from error
