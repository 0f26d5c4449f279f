"""Explain what an image model says, from the model file alone.

    import analyzer

    a = analyzer.load("model.onnx", preprocess="imagenet")
    e = a.explain("cat.png", method="grad_cam", target="tabby")
    e.heatmap            # (1, H, W) in [0, 1]
    e.overlay().show()
    e.save("cat.npz")

Names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.errors import (
        AnalyzerError,
        ExplanationWarning,
        ImageError,
        InputError,
        MissingProviderError,
        ModelRejectedError,
        UsageError,
    )
    from analyzer.explanation import Explanation
    from analyzer.loading import load
    from analyzer.methods import METHODS, Method
    from analyzer.model import Analyzer
    from analyzer.preprocess import Preprocess
    from analyzer.targets import Box, Mask, Similarity

__all__ = [
    "METHODS",
    "Analyzer",
    "AnalyzerError",
    "Box",
    "Explanation",
    "ExplanationWarning",
    "ImageError",
    "InputError",
    "Mask",
    "Method",
    "MissingProviderError",
    "ModelRejectedError",
    "Preprocess",
    "Similarity",
    "UsageError",
    "load",
]

_HOME = {
    "METHODS": "methods",
    "Analyzer": "model",
    "Box": "targets",
    "Explanation": "explanation",
    "Mask": "targets",
    "Method": "methods",
    "Preprocess": "preprocess",
    "Similarity": "targets",
    "load": "loading",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
