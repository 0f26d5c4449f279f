"""Exports that several oracle tests share, made once per session."""

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest


@pytest.fixture(scope="session", autouse=True)
def _frameworks() -> None:
    """Import here whatever warns while it is imported, and two threads, as everywhere else."""
    for name in ("torch", "torchvision", "onnxscript", "captum", "pytorch_grad_cam"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install '.[oracles]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        from tests.oracles.torchvision_door import import_torchvision

        import_torchvision()
        import captum.attr  # noqa: F401
        import pytorch_grad_cam  # noqa: F401
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def exported() -> Iterator[Callable[..., onnx.ModelProto]]:
    """`exported(family, size, how)`: the ONNX file of a family, from a cache of this session."""

    with tempfile.TemporaryDirectory() as folder:  # pytest would keep its own for three sessions

        def at_size(name: str, size: int, how: str = "dynamo") -> onnx.ModelProto:
            from tests.oracles.agreement import exports

            return exports(name, Path(folder), how)(size)

        yield at_size
