"""Segmentation, detection and embeddings against autograd in double precision."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graph_rewrites as gr
from tests.graph_rewrites.runtime import run

pytestmark = pytest.mark.oracles

SIZE = 64
CLASSES = 6
BATCHES = 3
SEGMENTATION = [
    "lraspp_mobilenet_v3_large",
    pytest.param("fcn_resnet50", marks=pytest.mark.slow),
    pytest.param("deeplabv3_resnet50", marks=pytest.mark.slow),
]


def made(name: str, pick: Callable[[Any, Any], Any], **options: object) -> Any:
    """A seeded torchvision network that returns what `pick` takes of it and its input."""
    from torch import nn

    from tests.oracles.torchvision_door import import_torchvision
    from tests.oracles.weights import seeded

    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            models = import_torchvision().models
            homes = (models, models.segmentation, models.detection)
            build = next(getattr(home, name) for home in homes if hasattr(home, name))
            self.net = build(weights=None, **options)

        def forward(self, x: Any) -> Any:
            return pick(self.net, x)

    return seeded(Picked, (3, SIZE, SIZE))


def agrees(net: Any, model: Any, score: Callable[[Any], Any], feeds: dict, **options: str) -> None:
    """Score and gradient of the explanation model are autograd's; see DESIGN's agreement."""
    import torch

    built = gr.explanation_model(model, "gradient", **options)
    errors, own = [], []
    double = copy.deepcopy(net).double()
    for seed in range(BATCHES):
        images = np.random.default_rng(seed).standard_normal((2, 3, SIZE, SIZE))
        images = images.astype(np.float32)
        got = run(built, {"input": images, **feeds})
        gradients = []
        for network, dtype in ((double, torch.float64), (net, torch.float32)):
            x = torch.tensor(images, dtype=dtype, requires_grad=True)
            values = score(network(x))
            (gradient,) = torch.autograd.grad(values.sum(), x)
            gradients.append(gradient.double().numpy())
            if network is double:
                expected = values.detach().numpy()
                near = 1e-4 * np.abs(expected).max()  # a sum over a mask may cancel
                np.testing.assert_allclose(got["score/used"], expected, rtol=1e-3, atol=near)
        truth, single = gradients
        length = np.linalg.norm(truth)
        errors.append(np.linalg.norm(got["map/gradient"] - truth) / length)
        own.append(np.linalg.norm(single - truth) / length)
    assert np.median(errors) <= max(1e-4, 3 * max(own)), (errors, own)


@pytest.mark.parametrize("name", SEGMENTATION)
def test_a_mask_over_a_segmentation(name: str, tmp_path: Path) -> None:
    import torch

    from tests.oracles.torch_export import export

    net = made(name, lambda n, x: n(x)["out"], weights_backbone=None, num_classes=CLASSES)
    masks = (np.random.default_rng(1).random((2, SIZE, SIZE)) > 0.7).astype(np.float32)

    def score(out: Any) -> Any:
        return (out[[0, 1], [1, 4]] * torch.tensor(masks)).sum((1, 2))

    model = export(net, tmp_path / "net.onnx", SIZE)
    feeds = {"target": np.array([1, 4]), "mask": masks}
    agrees(net, model, score, feeds, objective="mask")
    (layer,) = [m for m in gr.feature_maps(model) if m.default]
    assert layer.shape[2:] < (SIZE, SIZE)


def test_a_box_of_a_detector_before_its_boxes_are_sorted_out(tmp_path: Path) -> None:
    from tests.oracles.torch_export import export

    def head(net: Any, x: Any) -> Any:
        return net.head(list(net.backbone(x).values()))["cls_logits"]

    net = made("ssdlite320_mobilenet_v3_large", head, weights_backbone=None, num_classes=CLASSES)
    model = export(net, tmp_path / "net.onnx", SIZE)
    found = gr.scores(model)
    assert (found.class_axis, found.classes, found.position_axes) == (2, CLASSES, (1,))
    feeds = {"target": np.array([2, 5]), "box": np.array([3, found.places - 1])}
    agrees(
        net, model, lambda out: out[[0, 1], feeds["box"], feeds["target"]], feeds, objective="box"
    )


def test_the_similarity_of_embeddings(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from tests.oracles.torch_export import export

    def embed(net: Any, x: Any) -> Any:
        net.fc = nn.Identity()
        return net(x)

    net = made("resnet18", embed)
    model = export(net, tmp_path / "net.onnx", SIZE)
    reference = np.random.default_rng(9).random((2, 512)).astype(np.float32)

    def score(out: Any) -> Any:
        return torch.cosine_similarity(out, torch.tensor(reference, dtype=out.dtype))

    agrees(net, model, score, {"reference": reference}, objective="similarity")
