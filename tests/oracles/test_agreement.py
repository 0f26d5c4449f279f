"""Gradients of every torchvision family: against their own forward and against PyTorch's."""

import numpy as np
import pytest

from tests.oracles.families import FAMILIES, TORCHSCRIPT

pytestmark = pytest.mark.oracles

CASES = [(name, "dynamo") for name in FAMILIES] + [(name, "torchscript") for name in TORCHSCRIPT]


def cases(test):
    ids = ["-".join(case) for case in CASES]
    return pytest.mark.parametrize(("name", "how"), CASES, ids=ids)(test)


@cases
def test_the_gradient_is_its_forwards_and_pytorchs(name, how, exported):
    """On small pictures; the native size takes minutes, see below."""
    from tests.oracles.agreement import sharp
    from tests.oracles.passes import SHARP_BAR
    from tests.oracles.torch_models import NETWORKS

    size = NETWORKS[name].small
    model = exported(name, size, how)
    image, layer = sharp(model, size)
    assert image <= SHARP_BAR
    assert layer <= SHARP_BAR
    _assert_agreement(name, model, size)


@pytest.mark.slow
@cases
def test_the_gradient_is_pytorchs_at_native_size(name, how, exported):
    from tests.oracles.torch_models import NETWORKS

    size = NETWORKS[name].size
    _assert_agreement(name, exported(name, size, how), size)


def _assert_agreement(name, model, size):
    from tests.oracles.agreement import agree, assert_agreement

    found = agree(name, model, size)
    assert max(found.of("activation")) < 1e-4, "not the default layer, or not the same weights"
    assert_agreement(found)


def test_a_wrong_gradient_would_be_seen(exported):
    """The oracle itself: the sweep of another rule is far away in every figure."""
    from tests.oracles.agreement import CLASSES
    from tests.oracles.onnx_gradients import OnnxGradients
    from tests.oracles.passes import BATCH
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
