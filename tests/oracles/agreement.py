"""Agreement of a backward graph with its own forward and with PyTorch's float64 gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from graph_rewrites.sharp import directional_error
from tests.oracles.onnx_gradients import INPUT, OnnxGradients, resized
from tests.oracles.passes import (
    BATCH,
    FORCED_BAR,
    INPUTS,
    ROUNDING_BAR,
    Gradients,
    count_flips,
    distance,
    drawn,
)
from tests.oracles.torch_export import Exporter, export
from tests.oracles.torch_gradients import gradients
from tests.oracles.torch_models import NETWORKS, build

Exports = Callable[[int], onnx.ModelProto]
CLASSES = 1000


@dataclass(frozen=True)
class Picture:
    """How far the runtime's gradients of one picture are from PyTorch's in float64, ‖Δ‖/‖g‖.

    Attributes:
        image: of the gradient at the picture.
        layer: of the gradient at the default CAM layer.
        own_image: of PyTorch's own float32 gradient at the picture.
        own_layer: the same at the layer.
        flips: elements whose kink stood on another linear piece in the runtime than in float64.
        layer_flips: those of them that lie behind the layer.
        forced_image: `image`, once PyTorch's kinks are forced onto the runtime's pieces.
        forced_layer: the same at the layer.
        activation: of the layer's values, which tells that it is the right layer.
    """

    image: float
    layer: float
    own_image: float
    own_layer: float
    flips: int
    layer_flips: int
    forced_image: float
    forced_layer: float
    activation: float


@dataclass(frozen=True)
class Agreement:
    """What was measured of one family, one entry per picture."""

    pictures: Sequence[Picture]

    def of(self, name: str) -> list[float]:
        """One figure, for all pictures."""
        return [getattr(picture, name) for picture in self.pictures]


def agree(
    name: str, model: onnx.ModelProto, size: int, relu: str = "gradient", inputs: int = INPUTS
) -> Agreement:
    """Compare the gradients of one exported family with PyTorch's.

    Args:
        name: the family.
        model: its export at this size.
        size: height and width of the pictures.
        relu: the ReLU rule, in both.
        inputs: how many batches of two pictures.
    """
    ours = OnnxGradients(model, relu)
    single = NETWORKS[name].hooked(build(name))
    double = copy.deepcopy(single).double()
    layers = [NETWORKS[name].layer(net) for net in (single, double)]
    pictures: list[Picture] = []
    for seed in range(inputs):
        images, ct = drawn(seed, (BATCH, 3, size, size), (BATCH, CLASSES))
        mine = ours(images, ct)
        own = gradients(single, layers[0], images, ct, relu)
        truth = gradients(double, layers[1], images, ct, relu)
        forced = gradients(double, layers[1], images, ct, relu, replay=mine.kinks)
        pictures += [_picture(n, mine, own, truth, forced) for n in range(BATCH)]
    return Agreement(pictures)


def assert_agreement(found: Agreement) -> None:
    """Both parts of the bar: near enough, and what is further away is flips and nothing else.

    Once PyTorch is held to the runtime's linear pieces only rounding is left: 1e-5, or in a network
    that flips nothing three times PyTorch's own, which smooth activations make larger.
    """
    for what, flips in (("image", "flips"), ("layer", "layer_flips")):
        own = max(found.of(f"own_{what}"))
        assert np.median(found.of(what)) <= max(ROUNDING_BAR, 3 * own)
        for apart, count in zip(found.of(what), found.of(flips), strict=True):
            assert apart <= ROUNDING_BAR or count > 0, f"{what}: {apart:.1e} without a flip"
        rounding = 3 * own if not any(found.of(flips)) else 0.0
        bar = min(ROUNDING_BAR, max(FORCED_BAR, rounding))
        worst = max(found.of(f"forced_{what}"))
        assert worst <= bar, f"{what}: {worst:.1e}, more than flips"


def sharp(model: onnx.ModelProto, size: int) -> tuple[float, float]:
    """Directional errors of the gradients at the picture and at the default CAM layer."""
    ours = OnnxGradients(model)
    picture = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    assert ours.layer is not None
    directions = 4 if size < 100 else 2  # the large ones take a second per evaluation
    image, layer = (
        directional_error(ours.model, {INPUT: picture}, wrt, directions=directions)
        for wrt in (INPUT, ours.layer.tensor)
    )
    return image, layer


def _picture(
    n: int, mine: Gradients, own: Gradients, truth: Gradients, forced: Gradients
) -> Picture:
    assert truth.before_layer is not None
    flips = count_flips(mine.kinks, truth.kinks, n)
    return Picture(
        image=distance(mine.image[n], truth.image[n]),
        layer=distance(mine.layer[n], truth.layer[n]),
        own_image=distance(own.image[n], truth.image[n]),
        own_layer=distance(own.layer[n], truth.layer[n]),
        flips=sum(flips),
        layer_flips=sum(flips[truth.before_layer :]),
        forced_image=distance(mine.image[n], forced.image[n]),
        forced_layer=distance(mine.layer[n], forced.layer[n]),
        activation=distance(mine.activation[n], truth.activation[n]),
    )


def exports(name: str, folder: Path, how: Exporter = "dynamo") -> Exports:
    """The family's ONNX file at any size, exported once where one export serves all sizes."""
    network = NETWORKS[name]

    def at(size: int) -> onnx.ModelProto:
        made_at = network.size if network.resizes else size
        path = folder / f"{name}.{made_at}.{how}.onnx"
        model = onnx.load(path) if path.exists() else export(build(name), path, made_at, how)
        return model if made_at == size else resized(model, size)

    return at
