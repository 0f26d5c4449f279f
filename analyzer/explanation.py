"""What comes out: the raw map with everything needed to read, redraw and check it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analyzer.errors import UsageError
from analyzer.geometry import Geometry
from analyzer.heatmap import blend, emphasise, normalise, place, signed_rgb
from analyzer.pictures import Picture

if TYPE_CHECKING:
    from PIL import Image

    from graph_rewrites.coverage import Coverage

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The maps of N pictures, T targets each, by one method.

    Attributes:
        values: Raw float32, never normalised; its axes are named by `axes`. Channels come first,
            also where the model's input has them last, and in the order of the model's input.
        axes: Names of the axes of `values`, a subset of "NTCHW" in that order.
        grid: A CAM's map on the layer's own grid (N, h, w) or (N, T, h, w), else None.
        target: The class explained, (N,) or (N, T); 0 for a similarity.
        scores: Its score before softmax and quantisation, over the mask or in the box if that is
            asked, or the similarity; (N,) or (N, T).
        layer: The layer, for methods that need one.
        method: The method's name.
        coverage: Each activation of the network and the rule it got.
        provenance: Hashes, versions, provider, preprocessing, conventions; plain JSON values.
        outputs: The model's own outputs, by name; of several pictures those with a row for each.
        labels: What is explained in words: class names of `target`, with mask or box; nested like
            `target`.
        pictures: The upright originals.
        geometry: Where the model's input lies in each original.
        signed: The map has a sign and channels.
        channels: The order of the channels: "RGB", "BGR", "L", or "" where unknown.
        listed: The pictures were given as a list.
        mark: The layer in its files' names, where the call had several; else "".
    """

    values: Floats
    axes: str
    grid: Floats | None
    target: Integers
    scores: Floats
    layer: str | None
    method: str
    coverage: "Coverage | None"
    provenance: Mapping[str, Any]
    outputs: Mapping[str, npt.NDArray[Any]]
    labels: tuple[tuple[str, ...], ...]
    pictures: tuple[Picture, ...]
    geometry: tuple[Geometry, ...]
    signed: bool
    channels: str = "RGB"
    listed: bool = field(default=False)
    mark: str = ""

    def __post_init__(self) -> None:
        """Keep the arrays from being changed in place: they are a record."""
        for array in (self.values, self.grid, self.target, self.scores, *self.outputs.values()):
            if array is not None:
                array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator["Explanation"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> "Explanation":
        """One picture's explanation; the leading axis is kept."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        one = slice(index, index + 1)
        images = self.provenance.get("images", [])
        return replace(
            self,
            values=self.values[one],
            grid=None if self.grid is None else self.grid[one],
            target=self.target[one],
            scores=self.scores[one],
            provenance={**self.provenance, "images": images[one]},
            outputs={n: a[one] if len(self) > 1 else a for n, a in self.outputs.items()},
            labels=self.labels[one],
            pictures=self.pictures[one],
            geometry=self.geometry[one],
            listed=False,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The pictures' file names."""
        return tuple(picture.name for picture in self.pictures)

    @property
    def targets(self) -> int:
        """T, the number of targets for each picture."""
        return self.values.shape[1] if "T" in self.axes else 1

    @cached_property
    def heatmap(self) -> Floats:
        """(N, H, W) or (N, T, H, W) in [0, 1], the model input's size.

        Each map is divided by its own maximum; of a signed map the largest |value| of the channels
        is taken first. An all-zero map stays zero.
        """
        flat = np.abs(self.values).max(axis=-3) if "C" in self.axes else self.values
        return normalise(flat)

    def overlay(self, strength: float = 0.75) -> Any:  # noqa: ANN401
        """The heat over the original picture, resize and crop undone.

        Args:
            strength: Opacity at full heat.

        Returns:
            A PIL picture; for a list of pictures a list; with T targets, lists of T.
        """
        return self._nested(lambda image, t: self._overlay(image, t, strength))

    def picture(self) -> Any:  # noqa: ANN401
        """A signed map as RGB with zero at mid-grey, the original picture's size.

        Returns:
            Nested like `overlay()`.

        Raises:
            UsageError: The method's map has no sign.
        """
        if not self.signed:
            raise UsageError(f"a {self.method} map has no sign; use overlay() or heatmap")
        return self._nested(self._signed)

    def drawings(self, image: int, target: int) -> dict[str, "Image.Image"]:
        """The pictures of one map by kind: "overlay", "heatmap" and, for signed maps, "signed"."""
        from PIL import Image

        heat = place(self._heat(image, target), self.geometry[image])
        grey = Image.fromarray(np.rint(heat * 255).astype(np.uint8))
        drawn = {"overlay": self._overlay(image, target), "heatmap": grey}
        if self.signed:
            drawn["signed"] = self._signed(image, target)
        return drawn

    def save(self, path: str | Path) -> list[Path]:
        """Write everything; each file appears whole or not at all.

        Args:
            path: A name ending in ".npz", or a folder, which gets the pictures too.

        Returns:
            The files written.

        Raises:
            UsageError: The place cannot be written.
        """
        from analyzer.archive import save

        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read what `save` wrote, without executing anything in it.

        Raises:
            UsageError: There is no such file, or it is no explanation.
        """
        from analyzer.archive import load

        return load(Path(path))

    def _nested(self, draw: Any) -> Any:  # noqa: ANN401
        def of(image: int) -> Any:  # noqa: ANN401
            if "T" not in self.axes:
                return draw(image, 0)
            return [draw(image, t) for t in range(self.targets)]

        return [of(i) for i in range(len(self))] if self.listed else of(0)

    def _heat(self, image: int, target: int) -> Floats:
        heat: Floats = self.heatmap[image, target] if "T" in self.axes else self.heatmap[image]
        return heat

    def _overlay(self, image: int, target: int, strength: float = 0.75) -> "Image.Image":
        from PIL import Image

        heat = self._heat(image, target)
        smooth = self.grid is not None and not self.signed
        shown = place(heat if smooth else emphasise(heat), self.geometry[image])
        return Image.fromarray(blend(self.pictures[image].pixels, shown, strength))

    def _signed(self, image: int, target: int) -> "Image.Image":
        from PIL import Image

        values = self.values[image, target] if "T" in self.axes else self.values[image]
        rgb = signed_rgb(values[::-1] if self.channels == "BGR" else values)
        placed = [place(rgb[..., c], self.geometry[image]) for c in range(3)]
        return Image.fromarray(np.rint(127.5 + 127.5 * np.stack(placed, -1)).astype(np.uint8))
