"""Fixtures that several test files need, and the skips that a missing optional part asks for."""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_FRAMEWORK = "torch"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `oracles`, with the reason, where PyTorch is not installed."""
    if importlib.util.find_spec(_FRAMEWORK) is not None:
        return
    reason = f"{_FRAMEWORK} is not installed: pip install '.[oracles]'"
    for item in items:
        if item.get_closest_marker("oracles") is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, photographs and bad inputs; skips where it is missing."""
    given = os.environ.get("ONNX_ANALYZER_SHARED")
    folder = Path(given) if given else ROOT.parent / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip(f"no assets at {folder}: set ONNX_ANALYZER_SHARED to their folder")
    return folder
