"""Who declares a model's preprocessing and class names: the caller, a sidecar, the catalogue.

A sidecar `model.toml` beside `model.onnx`:

    labels = "imagenet_labels.txt"      # or a list of names

    [preprocess]
    preset = "imagenet"                 # the keys of Preprocess, all optional
    size = [256, 256]
"""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from analyzer.catalog import CatalogEntry, catalog, find_by_hash, label_set
from analyzer.errors import UsageError, nearest
from analyzer.preprocess import PRESETS, Preprocess, preset

PreprocessSource: TypeAlias = "str | os.PathLike[str] | Mapping[str, object] | Preprocess | None"
LabelSource: TypeAlias = "str | os.PathLike[str] | Sequence[str] | None"


@dataclass(frozen=True)
class Declaration:
    """What is known about a model's input and classes, and who said so."""

    preprocess: Preprocess
    origin: str
    labels: tuple[str, ...] | None
    assumed: bool = False


def declare(
    preprocess: PreprocessSource, labels: LabelSource, model_path: Path | None, sha256: str
) -> Declaration:
    """Settle preprocessing and labels: as given, else the sidecar, the catalogue, a guess.

    Args:
        preprocess: A `Preprocess`, its keys, a preset, a catalogue entry or a TOML file.
        labels: Names, a text file with one name a line, or a label set of the catalogue.
        model_path: The model's file, beside which a sidecar may lie.
        sha256: The model's hash, by which the catalogue knows it.

    Raises:
        UsageError: A name that nobody knows, or a file that does not read.
    """
    found = _given(preprocess) if preprocess is not None else _found(model_path, sha256)
    if labels is not None:
        found = replace(found, labels=_labels(labels))
    elif found.labels is None and preprocess is not None:
        found = replace(found, labels=_found(model_path, sha256).labels)
    return found


def _given(preprocess: "str | os.PathLike[str] | Mapping[str, object] | Preprocess") -> Declaration:
    if isinstance(preprocess, Preprocess):
        return Declaration(preprocess, "given", None)
    if isinstance(preprocess, Mapping):
        return Declaration(read_preprocess(preprocess, "preprocess"), "given", None)
    text = os.fspath(preprocess)
    if text.endswith(".toml"):
        return _sidecar(Path(text))
    if text in PRESETS:
        return Declaration(preset(text), f"preset {text}", None)
    entries = catalog()
    if text in entries:
        return _from_entry(entries[text])
    known = (*PRESETS, *entries)
    raise UsageError(
        f"unknown preprocessing {text!r}: no preset ({', '.join(PRESETS)}), no catalogue entry, "
        f"no .toml file{nearest(text, known)}"
    )


def _found(model_path: Path | None, sha256: str) -> Declaration:
    if model_path is not None and (beside := model_path.with_suffix(".toml")).is_file():
        return _sidecar(beside)
    if entry := find_by_hash(sha256):
        return _from_entry(entry)
    return Declaration(PRESETS["raw"], "assumed", None, assumed=True)


def _from_entry(entry: CatalogEntry) -> Declaration:
    where = f"catalogue entry {entry.name}"
    labels = _labels(entry.labels) if entry.labels is not None else None
    return Declaration(read_preprocess(entry.preprocess, where), where, labels)


def _sidecar(path: Path) -> Declaration:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: does not read as TOML ({error})") from error
    for key in table:
        if key not in ("preprocess", "labels"):
            raise UsageError(f"{path}: unknown key {key!r}{nearest(key, ('preprocess', 'labels'))}")
    section = table.get("preprocess", {})
    if not isinstance(section, dict):
        raise UsageError(f"{path}: [preprocess] must be a table")
    labels = table.get("labels")
    if isinstance(labels, str) and not Path(labels).is_absolute() and "labels" in table:
        beside = path.parent / labels
        labels = str(beside) if beside.is_file() else labels
    return Declaration(
        read_preprocess(section, f"{path} [preprocess]"),
        f"sidecar {path.name}",
        None if labels is None else _labels(labels),
    )


def _labels(source: object) -> tuple[str, ...]:
    if isinstance(source, str | os.PathLike):
        named = label_set(os.fspath(source))
        return named if named is not None else _label_file(Path(source))
    if not isinstance(source, Sequence) or not all(isinstance(name, str) for name in source):
        raise UsageError("labels must be names, a text file, or a label set of the catalogue")
    return tuple(source)


def _label_file(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(
            f"labels {str(path)!r}: no label set of the catalogue, no readable text file ({error})"
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def read_preprocess(table: Mapping[str, object], where: str) -> Preprocess:
    """Read the keys of a TOML table; `preset` names the one to start from.

    Args:
        table: Keys as the attributes of `Preprocess` are named, and `preset`.
        where: Named in messages, such as "model.toml [preprocess]".

    Raises:
        UsageError: An unknown key, or a value of the wrong type.
    """
    keys = dict(table)
    known = [field.name for field in fields(Preprocess)]
    try:
        base = preset(keys.pop("preset")) if "preset" in keys else Preprocess()
        for key in keys:
            if key not in known:
                raise UsageError(f"unknown key {key!r}{nearest(key, [*known, 'preset'])}")
        values = {key: _READERS[key](value) for key, value in keys.items()}
        return replace(base, **values)  # type: ignore[arg-type]
    except (TypeError, ValueError, UsageError) as error:
        raise UsageError(f"{where}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is needed, not {value!r}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number is needed, not {value!r}")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a whole number is needed, not {value!r}")
    return value


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(_number(v) for v in (value if isinstance(value, list | tuple) else [value]))


def _size(value: object) -> tuple[int, int]:
    pair = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2:
        raise TypeError(f"size is [height, width], not {value!r}")
    return _whole(pair[0]), _whole(pair[1])


def _colour(value: object) -> tuple[int, int, int]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise TypeError(f"background is [red, green, blue], not {value!r}")
    red, green, blue = (min(255, max(0, _whole(v))) for v in value)
    return red, green, blue


_READERS: Final[Mapping[str, Callable[[object], object]]] = MappingProxyType(
    {
        "size": _size,
        "resize": _text,
        "resize_to": _whole,
        "interpolation": _text,
        "channels": _text,
        "layout": _text,
        "dtype": _text,
        "scale": _number,
        "mean": _numbers,
        "std": _numbers,
        "background": _colour,
    }
)
