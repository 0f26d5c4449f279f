"""How each artefact is made, with nothing but the tools that a user has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from tests.oracles.onnx_gradients import INPUT
from tests.oracles.torch_export import Exporter, export

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")

CALIBRATION = 16
"""Pictures from which the quantiser takes its ranges."""

_OLDER_EXPORTER = 17
"""Up to this opset PyTorch's older exporter is used; the newer one begins above it."""

Maker = Callable[[nn.Module, Path, Path, int], None]
"""From the network, its float32 original and the size of the pictures, writes a file."""


def _opset(version: int, net: nn.Module, original: Path, target: Path, size: int) -> None:
    """The network exported once more, at another opset."""
    del original
    how: Exporter = "dynamo" if version > _OLDER_EXPORTER else "torchscript"
    export(net, target, size, how, version)


def _optimised(net: nn.Module, original: Path, target: Path, size: int) -> None:
    """What the runtime's optimiser saves at its extended level."""
    del net, size
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(original), options, providers=["CPUExecutionProvider"])


def _float16(net: nn.Module, original: Path, target: Path, size: int) -> None:
    """What the runtime's converter makes, pictures and scores included."""
    del net, size
    onnx.save(convert_float_to_float16(onnx.load(original)), target)


def noise(count: int, size: int, seed: int) -> np.ndarray:
    """Pictures (count, 3, size, size), float32, such as the weights are made for."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3, size, size)).astype(np.float32)


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Noise, one picture at a time."""

    def __init__(self, size: int) -> None:
        self._rows: Iterator[np.ndarray] = iter(noise(CALIBRATION, size, seed=100))

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self._rows, None)
        return None if row is None else {INPUT: row[None]}


def _quantised(
    form: QuantFormat,
    activations: QuantType,
    net: nn.Module,
    original: Path,
    target: Path,
    size: int,
) -> None:
    """The runtime's static quantiser, one scale per channel of the weights."""
    del net
    logging.disable(logging.WARNING)  # it recommends what the exporter has done already
    quantize_static(
        original,
        target,
        _Pictures(size),
        quant_format=form,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    logging.disable(logging.NOTSET)


ARTEFACTS: Mapping[str, Maker] = {
    **{f"opset {version}": partial(_opset, version) for version in (9, 11, 13, 18, 21, 24)},
    "optimised, extended": _optimised,
    "Q/DQ, uint8": partial(_quantised, QuantFormat.QDQ, QuantType.QUInt8),
    "Q/DQ, int8": partial(_quantised, QuantFormat.QDQ, QuantType.QInt8),
    "operators, uint8": partial(_quantised, QuantFormat.QOperator, QuantType.QUInt8),
    "operators, int8": partial(_quantised, QuantFormat.QOperator, QuantType.QInt8),
    "float16": _float16,
}
"""Every artefact of a network by its name, and how it is made from it or from its original."""


def original_of(net: nn.Module, folder: Path, name: str, size: int) -> Path:
    """The network's float32 original, exported into `folder` once: PyTorch's exporter as it is."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        export(net, path, size)
    return path
