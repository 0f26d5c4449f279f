"""Gradients of every torchvision family: against their own forward and against PyTorch's."""

import numpy as np
import pytest

from tests.oracles.families import FAMILIES, TORCHSCRIPT

pytestmark = [pytest.mark.oracles, pytest.mark.slow]

CASES = [(name, "dynamo") for name in FAMILIES] + [(name, "torchscript") for name in TORCHSCRIPT]


@pytest.mark.parametrize(("name", "how"), CASES, ids=["-".join(case) for case in CASES])
def test_the_gradient_is_its_forwards_and_pytorchs(name, how, exported):
    from tests.oracles.agreement import ROUNDING_BAR, SHARP_BAR, agree, sharp
    from tests.oracles.torch_models import NETWORKS

    network = NETWORKS[name]
    small = exported(name, network.small, how)
    image, layer = sharp(small, network.small)
    assert image <= SHARP_BAR
    assert layer <= SHARP_BAR

    found = agree(name, exported(name, network.size, how), network.size)
    assert max(found.of("activation")) < 1e-4, "not the default layer, or not the same weights"
    for what, flips in (("image", "flips"), ("layer", "layer_flips")):
        assert np.median(found.of(what)) <= max(ROUNDING_BAR, 3 * max(found.of(f"own_{what}")))
        for distance, count in zip(found.of(what), found.of(flips), strict=True):
            assert distance <= ROUNDING_BAR or count > 0, f"{what}: {distance:.1e} without a flip"
        assert max(found.of(f"forced_{what}")) <= ROUNDING_BAR, "more than flips"


def test_a_wrong_gradient_would_be_seen(exported):
    """The oracle itself: the sweep of another rule is far away in every figure."""
    from tests.oracles.agreement import BATCH, CLASSES
    from tests.oracles.onnx_gradients import OnnxGradients
    from tests.oracles.torch_gradients import gradients
    from tests.oracles.torch_models import NETWORKS, build

    network, net = NETWORKS["resnet18"], build("resnet18")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 3, 64, 64)).astype(np.float32)
    ct = rng.standard_normal((BATCH, CLASSES)).astype(np.float32)
    ours = OnnxGradients(exported("resnet18", 64), relu="guided")(images, ct)
    truth = gradients(net, network.layer(net), images, ct)
    error = np.linalg.norm(ours.image - truth.image) / np.linalg.norm(truth.image)
    assert error > 0.1
