"""A model in the runtime on either device, as a function without arguments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime

from analyzer.session import CUDA_OPTIONS
from benchmarks.speed.timing import Run

Feeds = Mapping[str, np.ndarray]


def runtime_run(
    model: onnx.ModelProto,
    feeds: Feeds,
    device: str,
    threads: int,
    *,
    tf32: bool = False,
) -> Run:
    """Runs `model` on `feeds`; on CUDA these and the results stay on the device."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Between runs only: else idle sessions take the cores from the next contender.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers: list[object] = ["CPUExecutionProvider"]
    if device == "cuda":
        onnxruntime.preload_dlls()
        cuda = {**CUDA_OPTIONS, "use_tf32": str(int(tf32))}
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    if device == "cpu":
        return lambda: opened.run(None, dict(feeds))
    if opened.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("the runtime's CUDA provider does not load here")
    binding = _bound(opened, feeds, device)

    def run() -> object:
        opened.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding

    return run


def _bound(
    opened: onnxruntime.InferenceSession, feeds: Feeds, device: str
) -> onnxruntime.IOBinding:
    binding = opened.io_binding()
    for name, value in feeds.items():
        there = onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0)
        binding.bind_ortvalue_input(name, there)
    for output in opened.get_outputs():
        binding.bind_output(output.name, device)
    return binding
