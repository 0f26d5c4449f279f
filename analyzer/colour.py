"""The colour map of heatmaps: perceptually uniform, and readable without red-green vision."""

from typing import Final

import numpy as np
import numpy.typing as npt

# Every 15th of the 256 entries of "inferno" (Smith and van der Walt 2015, CC0); linear in between.
_CONTROL_POINTS: Final = (
    "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b"
    " c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4"
)

COLOUR_MAP: Final = "inferno"


def _table() -> npt.NDArray[np.uint8]:
    points = np.array([list(bytes.fromhex(point)) for point in _CONTROL_POINTS.split()], float)
    at = np.linspace(0, 255, len(points))
    channels = [np.interp(np.arange(256), at, points[:, c]) for c in range(3)]
    table: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return table


_TABLE: Final = _table()


def colourise(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Heat in [0, 1], of any shape, as RGB in a new last axis."""
    coloured: npt.NDArray[np.uint8] = _TABLE[np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)]
    return coloured
