"""What a reader needs to check or repeat an explanation: hashes, versions, conventions."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from analyzer.colour import COLOUR_MAP
from analyzer.geometry import Geometry
from analyzer.methods import Method
from analyzer.pictures import Picture
from analyzer.preprocess import Preprocess

if TYPE_CHECKING:
    from analyzer.explained import Explained
    from analyzer.sources import OpenedModel

_PACKAGES: Final = ("onnx-analyzer", "onnx", "onnx-graphsurgeon", "numpy", "pillow")

EXPLAINED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "class": "the score before softmax, log-softmax, sigmoid and quantisation",
        "mask": "a class's scores, before softmax and sigmoid, summed over the mask "
        "(Vinogradova et al. 2020)",
        "box": "a class's score in one box, before softmax and sigmoid and before boxes are "
        "sorted out",
        "similarity": "the cosine of the embedding to the reference's",
    }
)
"""The number whose gradient is taken, by objective."""


@cache
def versions() -> Mapping[str, str]:
    """Versions of everything that can change numbers, apart from the runtime's."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return MappingProxyType(found)


def model_facts(opened: "OpenedModel") -> dict[str, Any]:
    """The model by hash."""
    opsets = {o.domain or "ai.onnx": o.version for o in opened.model.opset_import}
    return {
        "name": opened.name,
        "sha256": opened.sha256,
        "external_data": dict(opened.external),
        "producer": f"{opened.model.producer_name} {opened.model.producer_version}".strip(),
        "opset": opsets,
    }


def score_facts(explained: "Explained") -> dict[str, Any]:
    """The tensor whose value is explained, and the number that is taken of it."""
    scores = explained.scores
    return {
        "tensor": scores.tensor,
        "objective": explained.objective,
        "class_axis": scores.class_axis,
        "position_axes": list(scores.position_axes),
        "classes": scores.classes,
        "peeled": list(scores.peeled),
        "output": scores.output,
    }


def image_facts(picture: Picture, geometry: Geometry) -> dict[str, Any]:
    """One picture: which it is, how it was read, where the model looked."""
    return {
        "name": picture.name,
        "sha256": picture.sha256,
        "sha256_of": picture.hashed,
        "kind": picture.kind,
        "size": list(picture.size),
        "exif_orientation": picture.orientation,
        "notes": list(picture.notes),
        "input_size": list(geometry.input),
        "window": [round(edge, 3) for edge in geometry.window()],
    }


def conventions(
    method: Method, other_activations: str, objective: str, quantised: bool, widened: bool
) -> dict[str, Any]:
    """Every choice on which tools differ and that shaped these numbers."""
    chosen: dict[str, Any] = {
        "method": method.title,
        "citation": method.citation,
        "notes": list(method.notes),
        "explained": EXPLAINED[objective],
        "relu_rule": method.relu,
        "relu_at_zero": "derivative 0",
        "other_activations": other_activations,
        "max_pool_ties": "first maximum in row-major order",
        "precision": "float32",
        "heatmap": "each map by its own maximum; signed: largest |value| of the channels first",
        "overlay": "maps of single pixels up to their 99th percentile; opacity follows the heat",
        "signed_picture": "zero at mid-grey; full contrast at the 99.5th percentile of |value|",
        "placement": "bilinear, half-pixel centres; no heat outside the part the model saw",
        "colour_map": COLOUR_MAP,
    }
    if quantised:
        chosen["quantised"] = "forward as in the file; backward straight-through"
    if widened:
        chosen["float16"] = "16-bit weights, arithmetic widened to float32"
    return chosen


def assumption(preprocess: Preprocess) -> str:
    """What is said of a preprocessing that nobody declared."""
    taken = f"{preprocess.channels} 0-255 without mean"
    if preprocess.scale != 1:
        taken = "preset 'imagenet'"
    elif preprocess.mean:
        taken = f"{preprocess.channels} 0-255 less 128"
    return (
        f"nobody declared its preprocessing; assumed {taken}; a wrong one spoils every answer, "
        "so declare it"
    )
