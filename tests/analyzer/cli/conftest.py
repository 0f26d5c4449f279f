"""A way to call the command line, and small models and pictures to call it with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from analyzer.cli import cli

SIZE, CLASSES = 32, 4
OPSET = 18


@dataclass(frozen=True)
class Answer:
    """What one call left behind."""

    code: int
    out: str
    err: str

    def is_one_error(self, code: int) -> bool:
        """Whether the call ended with this code and told exactly one error, without a traceback."""
        lines = self.err.splitlines()
        assert self.code == code, (self.code, self.err)
        assert "Traceback" not in self.err + self.out
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: "), lines
        return True


@pytest.fixture
def call() -> Callable[..., Answer]:
    """Call the command line as a shell would, in this process."""

    def run(*args: object) -> Answer:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="onnx-analyzer")
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


def classifier(
    channels: int = 3,
    middle: tuple[onnx.NodeProto, ...] = (),
    imports: tuple[onnx.OperatorSetIdProto, ...] = (),
) -> onnx.ModelProto:
    """Convolution, ReLU, `middle` (from "relu" to "features"), pool, dense layer, softmax."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, channels, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(8, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu1"),
        *(middle or (helper.make_node("Identity", ["relu"], ["features"], name="middle"),)),
        helper.make_node("GlobalAveragePool", ["features"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "v"], ["logits"], name="dense"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, SIZE, SIZE])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(
        nodes,
        "classifier",
        [image],
        [answer],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = (helper.make_opsetid("", OPSET), *imports)
    return helper.make_model(graph, opset_imports=list(imports), ir_version=9)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of four shapes with a softmax at its end, and its sidecar."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "classifier.onnx"
    onnx.save(classifier(), path)
    sidecar = 'labels = ["circle", "square", "triangle", "star"]\n[preprocess]\npreset = "tf"\n'
    path.with_suffix(".toml").write_text(sidecar, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture wider than high."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    Image.fromarray(pixels).save(path)
    return path
