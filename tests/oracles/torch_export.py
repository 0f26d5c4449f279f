"""Export a PyTorch network to ONNX, both ways, quietly."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import nn

from tests.oracles.onnx_gradients import INPUT, OUTPUT

Exporter = Literal["dynamo", "torchscript"]


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


def export(
    net: nn.Module, path: Path, size: int, how: Exporter = "dynamo", opset: int | None = None
) -> onnx.ModelProto:
    """Write `net` to `path` with a free batch and read it back.

    Args:
        net: float32, in eval mode, taking images (N, 3, size, size).
        path: the file to write; weights are inside it.
        size: height and width, fixed in the file.
        how: "dynamo" is torch's default exporter, "torchscript" the older one.
        opset: the exporter's default (18 or above, "dynamo") or 17 ("torchscript") where None.
    """
    example = torch.zeros(2, 3, size, size)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    with quiet():
        if how == "dynamo":
            batch = torch.export.Dim("batch", min=1)
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: batch},),
                verbose=False,
                **names,
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
                opset_version=opset or 17,
                dynamic_axes=axes,
                **names,
            )
    return onnx.load(path)
