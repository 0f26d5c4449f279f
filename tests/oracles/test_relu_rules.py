"""Guided backpropagation and deconvnet where hook-based libraries are blind.

Functional ReLUs (GoogLeNet, DenseNet) and ReLU6 (MobileNetV2) are replaced by autograd functions
with the published backward. On networks that captum hooks the same functions give captum's maps.
"""

import copy

import numpy as np
import pytest

pytestmark = pytest.mark.oracles

SIZES = {
    "mobilenet_v2": 224,
    "densenet121": 64,
    "googlenet": 64,
    "shufflenet_v2_x0_5": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
}


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_the_autograd_functions_are_captums(rule):
    from tests.oracles import captum_maps
    from tests.oracles.torch_gradients import gradients
    from tests.oracles.torch_models import NETWORKS, build

    net = copy.deepcopy(build("resnet18")).double()
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64))
    peer = {"guided": captum_maps.guided_backprop, "deconvnet": captum_maps.deconvnet}[rule]
    ours = gradients(net, NETWORKS["resnet18"].layer(net), images, np.eye(1000)[[5, 9]], rule)
    truth = peer(net, images, [5, 9])
    np.testing.assert_allclose(ours.image, truth, rtol=1e-9, atol=1e-12 * np.abs(truth).max())


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", SIZES)
def test_the_rules_are_the_autograd_functions(name, rule, exported):
    from tests.oracles.agreement import agree, assert_agreement

    assert_agreement(agree(name, exported(name, SIZES[name]), SIZES[name], relu=rule))
