"""The catalogue of known public models, and the files of the demo beside it.

Installed, they lie in the package; in a checkout, in its folder `models`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from analyzer.errors import AnalyzerError

_FILE: Final = "catalog.toml"


@dataclass(frozen=True)
class CatalogEntry:
    """One known model, or several that take the same input; `catalog.toml` explains the keys."""

    name: str
    title: str
    source: str
    licence: str
    sha256: tuple[str, ...]
    members: tuple[str, ...]
    labels: str | None
    preprocess: Mapping[str, object]


@cache
def models_dir() -> Path:
    """The folder of the catalogue and of the demo's files.

    Raises:
        AnalyzerError: The installation is incomplete.
    """
    package = Path(str(resources.files("analyzer")))
    for folder in (package / "_models", package.parent / "models"):
        if (folder / _FILE).is_file():
            return folder
    raise AnalyzerError(f"{_FILE} is missing from the installation; install onnx-analyzer again")


def find_by_hash(sha256: str) -> CatalogEntry | None:
    """The entry that lists a file of this hash."""
    return next((entry for entry in catalog().values() if sha256 in entry.sha256), None)


def label_set(name: str) -> tuple[str, ...] | None:
    """The class names of a label set or of a catalogue entry; None where neither has this name."""
    sets = _table().get("labels", {})
    if name not in sets:
        entry = catalog().get(name)
        return label_set(entry.labels) if entry is not None and entry.labels else None
    stored = sets[name]
    if isinstance(stored, list):
        return tuple(stored)
    lines = (models_dir() / stored["file"]).read_text(encoding="utf-8").splitlines()
    return (*stored.get("first", ()), *(line for line in lines if line))


def demo_model() -> Path:
    """The model shipped for the demo."""
    return models_dir() / str(_table()["demo"]["model"])


def demo_image() -> Path:
    """The picture shipped for the demo."""
    return models_dir() / str(_table()["demo"]["image"])


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads((models_dir() / _FILE).read_text(encoding="utf-8"))


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """Every entry by name."""
    return MappingProxyType(
        {
            name: CatalogEntry(
                name=name,
                title=keys["title"],
                source=keys["source"],
                licence=keys["licence"],
                sha256=tuple(keys.get("sha256", ())),
                members=tuple(keys.get("members", ())),
                labels=keys.get("labels"),
                preprocess=keys.get("preprocess", {}),
            )
            for name, keys in _table().get("models", {}).items()
        }
    )
