"""Anything a model can come from, as a ModelProto: one file per framework."""

import os
from pathlib import Path
from typing import TypeAlias

import onnx

from analyzer.errors import UsageError
from analyzer.sources.onnx_file import OpenedModel, from_proto, read_onnx

__all__ = ["ModelSource", "OpenedModel", "open_model"]

ModelSource: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto"


def open_model(source: ModelSource) -> OpenedModel:
    """Open a model; the caller's object is never changed.

    Args:
        source: The path of an ONNX file, or a ModelProto.

    Raises:
        UsageError: There is no such file, or the object is of another kind.
        ModelRejectedError: The file is no ONNX, damaged or too large.
    """
    if isinstance(source, onnx.ModelProto):
        return from_proto(source)
    if isinstance(source, str | os.PathLike):
        return read_onnx(Path(source))
    raise UsageError(
        f"a model must be the path of an ONNX file or a ModelProto, not {type(source).__name__}; "
        "export it to ONNX first"
    )
