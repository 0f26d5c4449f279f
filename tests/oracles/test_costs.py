"""What an explanation model of ResNet-50 costs: time to build it, bytes to ship it."""

from __future__ import annotations

import time
from pathlib import Path

import onnx
import pytest

import graph_rewrites as gr

pytestmark = pytest.mark.oracles


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    import torch

    from tests.oracles.torch_export import export
    from tests.oracles.torchvision_door import import_torchvision

    torch.manual_seed(0)
    net = import_torchvision().models.resnet50().eval()
    return export(net, tmp_path_factory.mktemp("resnet50") / "resnet50.onnx", 224)


@pytest.mark.parametrize("method", gr.METHODS)
def test_building_takes_at_most_a_second(resnet50: onnx.ModelProto, method: str) -> None:
    best = min(_seconds(resnet50, method) for _ in range(5))
    assert best <= 1.0, f"{best:.2f} s"


@pytest.mark.parametrize("method", gr.METHODS)
def test_weights_are_shared(resnet50: onnx.ModelProto, method: str, tmp_path: Path) -> None:
    built = gr.explanation_model(resnet50, method)
    ratio = built.ByteSize() / resnet50.ByteSize()
    assert ratio <= 1.02, f"{ratio:.4f}"


def _seconds(model: onnx.ModelProto, method: str) -> float:
    start = time.perf_counter()
    gr.explanation_model(model, method)
    return time.perf_counter() - start
