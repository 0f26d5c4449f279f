"""Run models in onnxruntime, as every test of this folder does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort


def session(
    model: onnx.ModelProto,
    *,
    optimised: bool = True,
    save_to: str | None = None,
) -> ort.InferenceSession:
    """A quiet CPU session."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_to:
        options.optimized_model_filepath = save_to
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, optimised: bool = True
) -> dict[str, np.ndarray]:
    """All outputs of a model by name, after the full checker."""
    onnx.checker.check_model(model, full_check=True)
    opened = session(model, optimised=optimised)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, dict(feeds)), strict=True))
