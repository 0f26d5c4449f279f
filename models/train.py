"""Train the demo network and write what ships with the package.

    python models/train.py

writes beside this file

    shapes.onnx   the network, weights inside
    shapes.toml   its preprocessing and class names
    shapes.png    the picture that the demo explains

Every scene is drawn once, from the run's seed and its place in the run; so the seed fixes the data,
the order and the first weights. The loss is a binary cross-entropy for each class, plus a charge
for votes that speak for a class outside the box of its object: so the network is right for the
right reason, and it is known beforehand where an explanation of it must point. Needs PyTorch (the
extra `torch`), and no GPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from network import ShapeNet, onnx_model
from PIL import Image
from scenes import CLASSES, SIZE, draw_scene
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

HERE = Path(__file__).resolve().parent
SEED = 0
SCENES = 24_000
BATCH = 32
PEAK_RATE = 6e-3
ASTRAY_WEIGHT = 0.2
GRID = 12  # the side of the last feature map
THREADS = 1  # the order of sums depends on it
DEMO_SEED, DEMO_SIZE = 9, 384


class Lesson(NamedTuple):
    """A training scene, or a batch of them."""

    image: Tensor
    """uint8 (3, SIZE, SIZE)."""
    present: Tensor
    """float32 (classes,): which classes are on it."""
    outside: Tensor
    """float32 (classes, GRID, GRID): 1 where a place of the grid lies outside the class's box."""


class Scenes(Dataset[Lesson]):
    """The training scenes, in the order of the run."""

    def __len__(self) -> int:
        return SCENES

    def __getitem__(self, index: int) -> Lesson:
        """Draw scene `index`."""
        if not 0 <= index < SCENES:
            raise IndexError(index)
        scene = draw_scene((SEED, index))
        present, outside = torch.zeros(len(CLASSES)), torch.ones(len(CLASSES), GRID, GRID)
        at = (torch.arange(GRID) + 0.5) * SIZE / GRID
        for target, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes, strict=True):
            present[target] = 1
            rows, columns = (at >= y0) & (at < y1), (at >= x0) & (at < x1)
            outside[target][rows[:, None] & columns] = 0
        return Lesson(torch.from_numpy(scene.image).permute(2, 0, 1), present, outside)


def train() -> ShapeNet:
    """One pass over the scenes with AdamW and one cycle of the learning rate."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    network = ShapeNet(len(CLASSES))
    batches = DataLoader(Scenes(), BATCH, num_workers=1)  # in order: each scene is new anyway
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=len(batches))
    for lesson in _with_progress(batches):
        loss = _loss(network, lesson)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        rate.step()
    return network.eval()


def _loss(network: ShapeNet, lesson: Lesson) -> Tensor:
    features = network.features(lesson.image.float() / 255)
    wrong = binary_cross_entropy_with_logits(network.scores(features), lesson.present)
    astray = (torch.relu(network.votes(features)) * lesson.outside).mean()
    return wrong + ASTRAY_WEIGHT * astray


def _with_progress(batches: DataLoader[Lesson]) -> Iterator[Lesson]:
    start = time.monotonic()
    for index, batch in enumerate(batches):
        yield batch
        if (index + 1) % 100 == 0 or index + 1 == len(batches):
            seconds = time.monotonic() - start
            print(f"{(index + 1) * BATCH} of {SCENES} scenes, {seconds:.0f} s", flush=True)


def sidecar() -> str:
    """The TOML text that declares the network's preprocessing and class names."""
    return "\n".join(
        (
            "# Written by models/train.py.",
            f"labels = {json.dumps(CLASSES)}",
            "",
            "[preprocess]",
            f"size = [{SIZE}, {SIZE}]",
            'resize = "square_crop"',
            'interpolation = "bilinear"',
            'channels = "RGB"',
            f"scale = {1 / 255!r}",
            "",
        )
    )


def main() -> None:
    """Train, then write the three files."""
    notes = {"classes": json.dumps(CLASSES), "seed": str(SEED), "licence": "Apache-2.0"}
    onnx.save(onnx_model(train(), SIZE, notes), HERE / "shapes.onnx")
    (HERE / "shapes.toml").write_text(sidecar(), encoding="utf-8")
    scene = draw_scene(DEMO_SEED, objects=3, size=DEMO_SIZE, max_box_share=0.12)
    Image.fromarray(scene.image).save(HERE / "shapes.png", optimize=True)


if __name__ == "__main__":
    main()
