"""Measure the demo network on fresh scenes, with PyTorch and nothing of the product.

    python models/evaluate.py

prints how well it names the shapes; how often the peak of Grad-CAM (Selvaraju et al. 2017) lies in
the box of the class that it explains; and how much larger a share of sum |map| guided Grad-CAM puts
into that box than guided backpropagation alone (Springenberg et al. 2015). A centred Gaussian and
a random map stand beside both, for they know nothing of the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import torch
from network import ShapeNet, load_onnx
from scenes import SIZE, Box, Scene, draw_scene
from torch import Tensor

MODEL = Path(__file__).resolve().parent / "shapes.onnx"
PEAK_STREAM, SHARE_STREAM = 1001, 1002  # seeds that no training run uses


class _GuidedRelu(torch.autograd.Function):
    """ct * (x > 0) * (ct > 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - PyTorch gives it no type
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> Tensor:  # noqa: ANN401
        (y,) = ctx.saved_tensors
        guided: Tensor = ct * (y > 0) * (ct > 0)
        return guided


def _image(scene: Scene) -> Tensor:
    return torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255


def grad_cam(network: ShapeNet, image: Tensor, target: int) -> Tensor:
    """Grad-CAM of the last grid, upsampled (bilinear, half-pixel) to (H, W)."""
    features = network.features(image).detach().requires_grad_()
    (ct,) = torch.autograd.grad(network.scores(features)[0, target], features)
    cam = torch.relu((ct.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True))
    return torch.nn.functional.interpolate(cam, size=image.shape[2:], mode="bilinear")[
        0, 0
    ].detach()


def guided_backprop(network: ShapeNet, image: Tensor, target: int) -> Tensor:
    """The guided gradient of one score, signed, (3, H, W)."""
    pixels = image.clone().requires_grad_()
    scores = network.scores(network.features(pixels, _GuidedRelu.apply))
    (ct,) = torch.autograd.grad(scores[0, target], pixels)
    return ct[0]


def peak_in_box(heat: Tensor, box: Box) -> bool:
    """Whether the first maximum of a map (H, W) lies in a box; a map of zeros has none."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    x0, y0, x1, y1 = box
    return bool(heat.max() > 0) and x0 <= column < x1 and y0 <= row < y1


def share_in_box(pixels: Tensor, box: Box) -> float:
    """The share of sum |map| of a map (..., H, W) that lies in a box."""
    x0, y0, x1, y1 = box
    weight = pixels.abs()
    return float(weight[..., y0:y1, x0:x1].sum() / weight.sum())


def _centred_gaussian() -> Tensor:
    at = torch.arange(SIZE) - (SIZE - 1) / 2
    bell = torch.exp(-(at**2) / (2 * (SIZE / 6) ** 2))
    return bell[:, None] * bell


def _blind_maps() -> dict[str, Callable[[], Tensor]]:
    rng = np.random.default_rng(0)
    gaussian = _centred_gaussian()
    return {
        "centred Gaussian": lambda: gaussian,
        "random map": lambda: torch.from_numpy(rng.random((SIZE, SIZE), np.float32)),
    }


def measure_names(network: ShapeNet, scenes: int) -> None:
    """Print how often each class, and each whole scene, is told right at score 0."""
    right = whole = 0
    for index in range(scenes):
        scene = draw_scene((PEAK_STREAM, index))
        said = set(np.flatnonzero(network(_image(scene))[0].detach().numpy() > 0).tolist())
        wrong = len(said.symmetric_difference(scene.classes))
        right += network.classifier.out_features - wrong
        whole += wrong == 0
    decisions = scenes * network.classifier.out_features
    print(f"presence right: {right / decisions:.2%}; all classes of a scene: {whole / scenes:.1%}")


def measure_peaks(network: ShapeNet, scenes: int) -> None:
    """Print how often the peak lies in the box, in scenes of two to four objects."""
    blind = _blind_maps()
    hits: dict[str, list[bool]] = {"Grad-CAM": [], **{name: [] for name in blind}}
    for index in range(scenes):
        scene = draw_scene((PEAK_STREAM, index), objects=(2, 4))
        for target, box in zip(scene.classes, scene.boxes, strict=True):
            hits["Grad-CAM"].append(peak_in_box(grad_cam(network, _image(scene), target), box))
            for name, draw in blind.items():
                hits[name].append(peak_in_box(draw(), box))
    for name, of_name in hits.items():
        print(f"peak in the box, {name}: {sum(of_name)} of {len(of_name)} ({np.mean(of_name):.1%})")


def measure_shares(network: ShapeNet, scenes: int) -> None:
    """Print the gain over guided backpropagation, in scenes of three small objects."""
    blind = _blind_maps()
    gains: dict[str, list[float]] = {"Grad-CAM": [], **{name: [] for name in blind}}
    alone = []
    for index in range(scenes):
        scene = draw_scene((SHARE_STREAM, index), objects=3, max_box_share=0.12)
        for target, box in zip(scene.classes, scene.boxes, strict=True):
            image = _image(scene)
            guided = guided_backprop(network, image, target)
            alone.append(share_in_box(guided, box))
            maps = {"Grad-CAM": grad_cam(network, image, target)}
            maps |= {name: draw() for name, draw in blind.items()}
            for name, heat in maps.items():
                gains[name].append(share_in_box(guided * heat, box) / alone[-1])
    print(f"share in the box, guided backpropagation: median {median(alone):.3f}")
    for name, of_name in gains.items():
        print(f"that share, times {name}: median {median(of_name):.2f} x as large")


def main() -> None:
    """Print all figures for the file that ships."""
    parser = argparse.ArgumentParser(description="Measure the demo network on fresh scenes.")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--scenes", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = load_onnx(onnx.load(arguments.model))
    measure_names(network, arguments.scenes)
    measure_peaks(network, arguments.scenes)
    measure_shares(network, arguments.scenes)


if __name__ == "__main__":
    main()
