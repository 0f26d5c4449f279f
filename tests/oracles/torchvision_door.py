"""Import torchvision beside a CPU build of PyTorch.

PyPI's torchvision wheel registers its C++ operators only against the torch it was built for; its
Python part needs two of their schemas at import time. Where the plain import fails, the two are
declared first, and the classification models load. Nothing of detection is used here.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # dropping a Library undoes its definitions


def import_torchvision() -> ModuleType:
    """The torchvision package, whether or not its compiled part fits this torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except RuntimeError:
            for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "DEF")
            for schema in _SCHEMAS:
                library.define(schema)
            _libraries.append(library)
            import torchvision
    return torchvision
