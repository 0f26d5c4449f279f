"""The photographs of the assets, as the ImageNet models take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PHOTOGRAPHS = (
    "bear.jpg", "cheetah_person.jpg", "chelsea.png", "coffee.png", "dog_cat.png", "fish.png",
    "goldfish.jpg", "hot_dog.jpg", "kitten_224.png", "snake.png",
)  # fmt: skip


def square_bytes(path: Path, size: int = 224) -> np.ndarray:
    """A centre-cropped square as RGB bytes, (1, size, size, 3)."""
    with Image.open(path) as image:
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)[None]
