"""Which networks the conformance run takes: `members.txt`, written by this module as a command.

Run it after an update of the frameworks. It needs PyTorch's zoos; Keras's applications are listed
too where TensorFlow is installed, and kept as they are where it is not.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("members.txt")
_LARGEST = 150_000_000  # parameters of a family's smallest member


def members() -> list[str]:
    """Every member as "<zoo>/<name>"."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def torchvision_members() -> Iterator[str]:
    """All classification models of torchvision."""
    from tests.oracles.torchvision_door import import_torchvision

    models = import_torchvision().models
    yield from (f"torchvision/{name}" for name in sorted(models.list_models(module=models)))


def dense_members() -> Iterator[str]:
    """Torchvision's segmentation and detection networks, as far as their scores."""
    from benchmarks.conformance.dense_networks import NAMES

    yield from (f"dense/{name}" for name in sorted(NAMES))


def timm_members() -> Iterator[str]:
    """Of every timm family, a name up to its first underscore, the member with the least weights.

    Families whose smallest member is above 150 million parameters are left out.
    """
    from tests.oracles.torchvision_door import import_torchvision

    import_torchvision()
    import timm
    import torch

    logging.disable(logging.WARNING)
    smallest: dict[str, tuple[int, str]] = {}
    for name in timm.list_models():
        with torch.device("meta"):
            size = sum(weight.numel() for weight in timm.create_model(name).parameters())
        family = name.partition("_")[0]
        smallest[family] = min(smallest.get(family, (size, name)), (size, name))
    yield from sorted(f"timm/{name}" for size, name in smallest.values() if size < _LARGEST)


def keras_members() -> Iterator[str]:
    """Every application of Keras."""
    from keras import applications

    found = inspect.getmembers(applications, inspect.isfunction)
    yield from (f"keras/{name}" for name, _ in sorted(found))


def main() -> None:
    """Write the list."""
    known = members() if FILE.exists() else []
    keras = [name for name in known if name.startswith("keras/")]
    if importlib.util.find_spec("keras") is not None:
        keras = list(keras_members())
    names = [*torchvision_members(), *dense_members(), *timm_members(), *keras]
    FILE.write_text(
        f"# Written by `python -m benchmarks.conformance.members`: {len(names)} networks.\n"
        + "".join(f"{name}\n" for name in names),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
