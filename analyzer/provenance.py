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

if TYPE_CHECKING:
    from analyzer.sources import OpenedModel
    from graph_rewrites.scores import Scores

_PACKAGES: Final = ("onnx-analyzer", "onnx", "onnx-graphsurgeon", "numpy", "pillow")


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


def model_facts(opened: "OpenedModel", scores: "Scores") -> dict[str, Any]:
    """The model by hash, and the tensor whose value is explained."""
    opsets = {o.domain or "ai.onnx": o.version for o in opened.model.opset_import}
    return {
        "name": opened.name,
        "sha256": opened.sha256,
        "external_data": dict(opened.external),
        "producer": f"{opened.model.producer_name} {opened.model.producer_version}".strip(),
        "opset": opsets,
        "scores": {
            "tensor": scores.tensor,
            "class_axis": scores.class_axis,
            "classes": scores.classes,
            "peeled": list(scores.peeled),
            "output": scores.output,
        },
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
    method: Method, other_activations: str, quantised: bool, widened: bool
) -> dict[str, Any]:
    """Every choice on which tools differ and that shaped these numbers."""
    chosen: dict[str, Any] = {
        "method": method.title,
        "citation": method.citation,
        "notes": list(method.notes),
        "explained": "the score before softmax, log-softmax, sigmoid and quantisation",
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
