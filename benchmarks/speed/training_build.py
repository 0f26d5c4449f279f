"""The runtime's training build, the one other differentiator of ONNX graphs, frozen since 1.19.2.

It is a package of the runtime's own name, so that it lives in an environment of its own and runs in
a process of its own, by turns with the others: a line on its standard input is a run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCORE, _LOSS = "benchmark/score", "benchmark/loss"


class TrainingBuild:
    """Forward and gradient of class 0, of noise.

    Args:
        python: the interpreter of the environment that has it.
        file: the network's export.
        batch: images in a run.
        threads: inside one operator.
    """

    def __init__(self, python: Path, file: Path, batch: int, threads: int) -> None:
        command = [python, "-m", "benchmarks.speed.training_build", file, str(batch), str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __call__(self) -> None:
        """Run once.

        Raises:
            RuntimeError: the process ended, with the last line that it said.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            _, said = self._process.communicate()
            raise RuntimeError((said.strip().splitlines() or ["it ended"])[-1])


def _serve(file: str, batch: int, threads: int) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    data, x = _gradient_model(file)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = next(each for each in session.get_inputs() if each.name == x)
    images = np.random.default_rng(0).standard_normal((batch, *given.shape[1:])).astype(np.float32)
    for _ in sys.stdin:
        session.run(None, {x: images})
        print("done", flush=True)


def _gradient_model(file: str) -> tuple[bytes, str]:
    """The network with its gradient at the picture, and the picture's name."""
    import onnx
    from onnx import TensorProto, helper
    from onnxruntime.capi import _pybind_state as training

    model = onnx.load(file)
    graph, scores = model.graph, model.graph.output[0].name
    x = graph.input[0].name
    graph.initializer.append(helper.make_tensor("benchmark/class", TensorProto.INT64, [], [0]))
    graph.node.append(helper.make_node("Gather", [scores, "benchmark/class"], [_SCORE], axis=1))
    graph.node.append(helper.make_node("ReduceSum", [_SCORE], [_LOSS], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(_LOSS, TensorProto.FLOAT, []))
    builder = training.GradientGraphBuilder(model.SerializeToString(), {_LOSS}, {x}, _LOSS)
    builder.build()
    built = onnx.load_from_string(builder.get_model())
    gradient = next(
        name for node in built.graph.node for name in node.output if name == f"{x}_grad"
    )
    if gradient not in {value.name for value in built.graph.output}:
        built.graph.output.append(helper.make_empty_tensor_value_info(gradient))
    return built.SerializeToString(), x


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
