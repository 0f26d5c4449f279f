"""Maps of the explanation models against captum's and pytorch-grad-cam's, in float64."""

import copy

import numpy as np
import pytest

pytestmark = pytest.mark.oracles

# Sizes are native where the network takes no other.
SIZES = {
    "alexnet": 224,
    "vgg11": 224,
    "resnet18": 96,
    "squeezenet1_1": 96,
    "densenet121": 64,
    "googlenet": 96,
    "mobilenet_v2": 96,
    "mobilenet_v3_small": 96,
    "efficientnet_b0": 160,
    "convnext_tiny": 64,
}
HOOKED = ("alexnet", "vgg11", "resnet18", "squeezenet1_1")  # every ReLU is a module


class _Networks:
    """A family in float32 and float64, three pictures, and what it sees in them."""

    def __init__(self, name):
        from tests.oracles.torch_models import NETWORKS, build

        self.size = SIZES[name]
        self.single = NETWORKS[name].hooked(build(name))
        self.double = copy.deepcopy(self.single).double()
        self.layers = [NETWORKS[name].layer(net) for net in (self.single, self.double)]
        rng = np.random.default_rng(5)
        self.images = rng.standard_normal((3, 3, self.size, self.size)).astype(np.float32)
        self.targets = self.double(_double(self.images)).argmax(dim=1).tolist()


def _maps(model, method, images, targets, count=1):
    import graph_rewrites as gr
    from tests.oracles.onnx_gradients import session

    explanation = gr.explanation_model(model, method=method, targets=count)
    return session(explanation).run({"input": images, "target": np.asarray(targets, np.int64)})


def _distances(maps, truth):
    assert maps.shape == truth.shape
    axes = tuple(range(1, truth.ndim))
    gaps = np.sqrt(np.sum((maps.astype(float) - truth) ** 2, axis=axes))
    return gaps / np.sqrt(np.sum(truth**2, axis=axes))


def _assert_as_near_as(maps, truth, own):
    """The median within 1e-4, or three times the peer's own distance in float32."""
    bar = max(1e-4, 3 * _distances(own, truth).max())
    assert np.median(_distances(maps, truth)) <= bar


@pytest.mark.parametrize("name", SIZES)
def test_gradient_and_saliency_are_captums(name, exported):
    from tests.oracles import captum_maps

    nets = _Networks(name)
    maps = _maps(exported(name, nets.size), ("gradient", "saliency"), nets.images, nets.targets)
    truth = captum_maps.saliency(nets.double, nets.images, nets.targets)
    own = captum_maps.saliency(nets.single, nets.images, nets.targets)
    _assert_as_near_as(maps["map/gradient"], truth, own)
    np.testing.assert_array_equal(maps["map/saliency"], np.abs(maps["map/gradient"]).max(axis=1))


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("name", HOOKED)
def test_the_relu_rules_are_captums(name, method, exported):
    from tests.oracles import captum_maps

    nets = _Networks(name)
    maps = _maps(exported(name, nets.size), method, nets.images, nets.targets)[f"map/{method}"]
    peer = getattr(captum_maps, method)
    truth = peer(nets.double, nets.images, nets.targets)
    _assert_as_near_as(maps, truth, peer(nets.single, nets.images, nets.targets))
    plain = captum_maps.saliency(nets.double, nets.images, nets.targets)
    assert _distances(plain, truth).min() > 0.1, "the rule makes no difference here"


@pytest.mark.parametrize("name", SIZES)
def test_grad_cam_is_pytorch_grad_cams(name, exported):
    import torch

    from tests.oracles import captum_maps

    nets = _Networks(name)
    model = exported(name, nets.size)
    first = np.tile(np.arange(8), (len(nets.images), 1))
    several = _maps(model, "grad_cam", nets.images, first, count=8)["map/grad_cam/raw"]
    targets = several.any(axis=(2, 3)).argmax(axis=1).tolist()  # the first with a map at all
    maps = _maps(model, "grad_cam", nets.images, targets)
    truth = captum_maps.grad_cam(nets.double, nets.layers[1], nets.images, targets)
    own = captum_maps.grad_cam(nets.single, nets.layers[0], nets.images, targets)
    assert truth.any(axis=(1, 2)).all(), "an empty map proves nothing"
    _assert_as_near_as(maps["map/grad_cam/raw"], truth, own)
    large = torch.nn.functional.interpolate(
        torch.tensor(maps["map/grad_cam/raw"])[:, None], size=(nets.size,) * 2, mode="bilinear"
    )
    np.testing.assert_allclose(maps["map/grad_cam"], large[:, 0].numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", HOOKED)
def test_guided_grad_cam_is_captums(name, exported):
    from tests.oracles import captum_maps

    nets = _Networks(name)
    maps = _maps(exported(name, nets.size), "guided_grad_cam", nets.images, nets.targets)
    truth = captum_maps.guided_grad_cam(nets.double, nets.layers[1], nets.images, nets.targets)
    own = captum_maps.guided_grad_cam(nets.single, nets.layers[0], nets.images, nets.targets)
    _assert_as_near_as(maps["map/guided_grad_cam"], truth, own)


def test_several_targets_share_one_forward(exported):
    from tests.oracles import captum_maps

    nets = _Networks("resnet18")
    targets = [[3, 500, -1], [12, -1, 999], [-1, 4, 7]]
    model = exported("resnet18", nets.size)
    maps = _maps(model, ("gradient", "grad_cam"), nets.images, targets, count=3)
    scores = nets.double(_double(nets.images)).numpy()
    used = np.where(np.array(targets) < 0, scores.argmax(axis=1)[:, None], targets)
    np.testing.assert_array_equal(maps["target/used"], used)
    expected = np.take_along_axis(scores, used, axis=1)
    np.testing.assert_allclose(maps["score/used"], expected, rtol=1e-4, atol=1e-4)
    for t in range(3):
        truth = captum_maps.saliency(nets.double, nets.images, used[:, t].tolist())
        own = captum_maps.saliency(nets.single, nets.images, used[:, t].tolist())
        _assert_as_near_as(maps["map/gradient"][:, t], truth, own)
        cam = captum_maps.grad_cam(nets.double, nets.layers[1], nets.images, used[:, t])
        np.testing.assert_allclose(
            maps["map/grad_cam/raw"][:, t], cam, rtol=1e-3, atol=1e-5 * cam.max()
        )


def _double(images):
    import torch

    return torch.tensor(images, dtype=torch.float64)
