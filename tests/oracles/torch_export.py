"""Export a PyTorch network to ONNX, both ways, quietly."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import nn

Exporter = Literal["dynamo", "torchscript"]
INPUT, OUTPUT = "input", "logits"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what the exporters print, log and warn about: none of it is a finding here."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def export(net: nn.Module, path: Path, size: int, how: Exporter = "dynamo") -> onnx.ModelProto:
    """Write `net` to `path` with a free batch and read it back.

    Args:
        net: float32, in eval mode, taking images (N, 3, size, size).
        path: the file to write; weights are inside it.
        size: height and width, fixed in the file.
        how: "dynamo" is torch's default exporter at its default opset, "torchscript" the older
            one at opset 17.
    """
    example = torch.zeros(2, 3, size, size)
    names = {"input_names": [INPUT], "output_names": [OUTPUT]}
    with quiet():
        if how == "dynamo":
            batch = torch.export.Dim("batch", min=1)
            program = torch.onnx.export(
                net, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False, **names
            )
            assert program is not None
            program.save(str(path), external_data=False)
        else:
            axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
            torch.onnx.export(
                net,
                (example,),
                str(path),
                dynamo=False,
                opset_version=17,
                dynamic_axes=axes,
                **names,
            )
    return onnx.load(path)


def resized(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """A copy of an export that takes pictures of another size.

    Right only for networks whose graph holds no size: exporting them again gives the same nodes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for dim in copy.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    return copy
