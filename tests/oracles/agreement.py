"""Agreement of a backward graph with its own forward and with PyTorch's float64 gradient.

`python -m tests.oracles.agreement [family ...]` measures families at their native size and writes
the table to AGREEMENT.md beside this file; `test_agreement.py` asserts the same figures.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from graph_rewrites.sharp import directional_error
from tests.oracles.families import FAMILIES
from tests.oracles.onnx_gradients import OnnxGradients
from tests.oracles.torch_export import INPUT, Exporter, export, resized
from tests.oracles.torch_gradients import Gradients, Kink, gradients
from tests.oracles.torch_models import NETWORKS, build

Exports = Callable[[int], onnx.ModelProto]
CLASSES, BATCH, INPUTS = 1000, 2, 3
SHARP_BAR, ROUNDING_BAR, FORCED_BAR = 1e-6, 1e-4, 1e-5


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
    """What was measured of one family.

    Attributes:
        pictures: one entry per picture.
        nodes: of the exported graph.
        seconds: wall time.
    """

    pictures: Sequence[Picture]
    nodes: int
    seconds: float

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
    start = time.perf_counter()
    ours = OnnxGradients(model, relu)
    single = NETWORKS[name].hooked(build(name))
    double = copy.deepcopy(single).double()
    layers = [NETWORKS[name].layer(net) for net in (single, double)]
    pictures: list[Picture] = []
    for seed in range(inputs):
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((BATCH, 3, size, size)).astype(np.float32)
        ct = rng.standard_normal((BATCH, CLASSES)).astype(np.float32)
        mine = ours(images, ct)
        own = gradients(single, layers[0], images, ct, relu)
        truth = gradients(double, layers[1], images, ct, relu)
        forced = gradients(double, layers[1], images, ct, relu, replay=mine.kinks)
        pictures += [_picture(n, mine, own, truth, forced) for n in range(BATCH)]
    return Agreement(pictures, len(model.graph.node), time.perf_counter() - start)


def assert_agreement(found: Agreement) -> None:
    """Both parts of the bar: near enough, and what is further away is flips and nothing else.

    Once PyTorch is held to the runtime's linear pieces only rounding is left: 1e-5, or in a network
    that flips nothing three times PyTorch's own, which smooth activations make larger.
    """
    for what, flips in (("image", "flips"), ("layer", "layer_flips")):
        own = max(found.of(f"own_{what}"))
        assert np.median(found.of(what)) <= max(ROUNDING_BAR, 3 * own)
        for distance, count in zip(found.of(what), found.of(flips), strict=True):
            assert distance <= ROUNDING_BAR or count > 0, f"{what}: {distance:.1e} without a flip"
        rounding = 3 * own if not any(found.of(flips)) else 0.0
        bar = min(ROUNDING_BAR, max(FORCED_BAR, rounding))
        worst = max(found.of(f"forced_{what}"))
        assert worst <= bar, f"{what}: {worst:.1e}, more than flips"


def sharp(model: onnx.ModelProto, size: int) -> tuple[float, float]:
    """Directional errors of the gradients at the picture and at the default CAM layer."""
    ours = OnnxGradients(model)
    picture = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    directions = 4 if size < 100 else 2  # the large ones take a second per evaluation
    image, layer = (
        directional_error(ours.model, {INPUT: picture}, wrt, directions=directions)
        for wrt in (INPUT, ours.layer)
    )
    return image, layer


def _picture(
    n: int, mine: Gradients, own: Gradients, truth: Gradients, forced: Gradients
) -> Picture:
    assert truth.before_layer is not None
    flips = [_flips(a, b, n) for a, b in zip(mine.kinks, truth.kinks, strict=True)]
    return Picture(
        image=_distance(mine.image[n], truth.image[n]),
        layer=_distance(mine.layer[n], truth.layer[n]),
        own_image=_distance(own.image[n], truth.image[n]),
        own_layer=_distance(own.layer[n], truth.layer[n]),
        flips=sum(flips),
        layer_flips=sum(flips[truth.before_layer :]),
        forced_image=_distance(mine.image[n], forced.image[n]),
        forced_layer=_distance(mine.layer[n], forced.layer[n]),
        activation=_distance(mine.activation[n], truth.activation[n]),
    )


def _flips(ours: Kink, theirs: Kink, n: int) -> int:
    assert ours.kind == theirs.kind, f"{ours.kind} in the graph, {theirs.kind} in PyTorch"
    assert ours.state.shape == theirs.state.shape
    return int(np.sum(ours.state[n] != theirs.state[n]))


def _distance(value: np.ndarray, truth: np.ndarray) -> float:
    assert value.shape == truth.shape, f"{value.shape} instead of {truth.shape}"
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


HEADER = """\
# Agreement with PyTorch

torchvision's smallest members with random weights, exported by PyTorch, differentiated, and run by
the runtime on the CPU: {batches} batches of two pictures at native size. Distances are ‖Δ‖/‖g‖ from
PyTorch's float64 gradient, the median over the pictures; "own" is the largest distance of PyTorch's
own float32 gradient. "flips" is how many activations and maxima stood on another linear piece in
float32, summed over the pictures; "forced" is the largest distance once PyTorch is held to the
pieces of the runtime: what is left is rounding. "sharp" is the float64 check of `sharp.py`, on
pictures of 64 px or the smallest that the network takes.

| family | nodes | sharp, image | layer | image | layer | own, image | layer | flips | forced |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def row(name: str, found: Agreement, sharp_errors: tuple[float, float]) -> str:
    """One line of the table."""
    figures = [
        *sharp_errors,
        float(np.median(found.of("image"))),
        float(np.median(found.of("layer"))),
        max(found.of("own_image")),
        max(found.of("own_layer")),
    ]
    forced = max(found.of("forced_image") + found.of("forced_layer"))
    cells = [name, str(found.nodes), *(f"{figure:.1e}" for figure in figures)]
    return "| " + " | ".join([*cells, str(int(sum(found.of("flips")))), f"{forced:.1e}"]) + " |\n"


def exports(name: str, folder: Path, how: Exporter = "dynamo") -> Exports:
    """The family's ONNX file at any size, exported once where one export serves all sizes."""
    network = NETWORKS[name]

    def at(size: int) -> onnx.ModelProto:
        made_at = network.size if network.resizes else size
        path = folder / f"{name}.{made_at}.{how}.onnx"
        model = onnx.load(path) if path.exists() else export(build(name), path, made_at, how)
        return model if made_at == size else resized(model, size)

    return at


def measure(name: str, folder: Path) -> str:
    """Export one family, measure it, and return its line of the table."""
    network, at = NETWORKS[name], exports(name, folder)
    found = agree(name, at(network.size), network.size)
    return row(name, found, sharp(at(network.small), network.small))


def main(names: Iterable[str]) -> None:
    """Print the table, line by line; write it where all families were asked for."""
    torch.set_num_threads(2)
    wanted = list(names) or list(FAMILIES)
    text = HEADER.format(batches=INPUTS)
    print(text, end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            line = measure(name, Path(folder))
            print(line, end="", flush=True)
            text += line
    if wanted == list(FAMILIES):
        Path(__file__).with_name("AGREEMENT.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
