"""How a member of a PyTorch zoo is built."""

from __future__ import annotations

from torch import nn

from benchmarks.conformance import dense_networks
from tests.oracles.torchvision_door import import_torchvision
from tests.oracles.weights import seeded

# Pixels of those whose pass over the native picture, twice as wide, fits into no 24 GiB in float64.
_FITTING = {"efficientnet_b7": 300, "qwen3_vit_88m": 384, "sam2_hiera_tiny": 448}
_AUXILIARY = {"googlenet", "inception_v3"}  # networks with a second head, for training only


def build(member: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A member's network with its seeded weights, and the shape (C, H, W) of one image."""
    zoo, _, name = member.partition("/")
    return {"timm": _timm, "torchvision": _torchvision, "dense": dense_networks.build}[zoo](name)


def _timm(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    import_torchvision()
    import timm

    shape = tuple(timm.create_model(name).default_cfg["input_size"])
    if name in _FITTING:
        shape = (shape[0], _FITTING[name], _FITTING[name])
    return seeded(lambda: timm.create_model(name, exportable=True), shape), shape


def _torchvision(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    models = import_torchvision().models
    options = {"init_weights": False, "aux_logits": False} if name in _AUXILIARY else {}
    # The smallest pictures that published weights were trained for.
    smallest = min(entry.transforms().crop_size[0] for entry in models.get_model_weights(name))
    size = _FITTING.get(name, smallest)
    shape = (3, size, size)
    return seeded(lambda: models.get_model(name, weights=None, **options), shape), shape
