"""Explanations on disk: one NPZ that holds everything, and pictures beside it."""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analyzer.errors import UsageError
from analyzer.explanation import Explanation
from analyzer.files import make_folder, write_atomically
from analyzer.geometry import Geometry
from analyzer.pictures import Picture

if TYPE_CHECKING:
    from graph_rewrites.coverage import Coverage

SCHEMA: Final = 1
_ARRAYS: Final = ("values", "target", "scores")
_LONGEST: Final = 60  # characters of a slug


def is_one_file(path: Path) -> bool:
    """Whether everything goes into one file of this name, and not into a folder."""
    return path.suffix.lower() == ".npz"


def save(explanation: Explanation, path: Path, stems: Sequence[str] | None = None) -> list[Path]:
    """Write an explanation to `path`, a ".npz" file or a folder; see `Explanation.save`.

    Args:
        explanation: What is written.
        path: The file or the folder; made with its parents.
        stems: How the files of each picture begin, by default as `file_stems` says; a caller who
            fills one folder by several calls has to number the pictures himself.
    """
    data = _pack(explanation)
    if is_one_file(path):
        make_folder(path.parent)
        write_atomically(path, data)
        return [path]
    make_folder(path)
    written = []
    for name, content in _files(explanation, data, stems or file_stems(explanation.names)):
        write_atomically(path / name, content)
        written.append(path / name)
    return written


def load(path: Path) -> Explanation:
    """Read an explanation; pickled objects are refused."""
    try:
        # numpy leaves the file open when it is no archive, so it is opened here.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta")))
        if meta["schema"] != SCHEMA:
            raise UsageError(
                f"{path}: schema {meta['schema']}, this version reads {SCHEMA}; "
                "use the version that wrote it"
            )
        return _unpack(arrays, meta)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: no explanation that can be read ({error})") from error


def _pack(explanation: Explanation) -> bytes:
    arrays: dict[str, Any] = {name: getattr(explanation, name) for name in _ARRAYS}
    if explanation.grid is not None:
        arrays["grid"] = explanation.grid
    arrays |= {f"outputs/{name}": array for name, array in explanation.outputs.items()}
    arrays |= {f"pictures/{i}": p.pixels for i, p in enumerate(explanation.pictures)}
    arrays["meta"] = np.array(json.dumps(_meta(explanation), ensure_ascii=True))
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _meta(explanation: Explanation) -> dict[str, object]:
    coverage = explanation.coverage
    pictures = [
        {key: value for key, value in vars(picture).items() if key != "pixels"}
        for picture in explanation.pictures
    ]
    plain = ("axes", "layer", "method", "labels", "signed", "channels", "listed", "mark")
    return {
        "schema": SCHEMA,
        **{name: getattr(explanation, name) for name in plain},
        "provenance": dict(explanation.provenance),
        "coverage": None if coverage is None else [asdict(a) for a in coverage.activations],
        "pictures": pictures,
        "geometry": [asdict(geometry) for geometry in explanation.geometry],
    }


def _unpack(arrays: dict[str, Any], meta: dict[str, Any]) -> Explanation:
    pictures = tuple(
        Picture(**{**facts, "notes": tuple(facts["notes"])}, pixels=arrays[f"pictures/{i}"])
        for i, facts in enumerate(meta["pictures"])
    )
    geometry = tuple(
        Geometry(**{key: (pair[0], pair[1]) for key, pair in facts.items()})
        for facts in meta["geometry"]
    )
    prefix = "outputs/"
    outputs = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return Explanation(
        **{name: arrays[name] for name in _ARRAYS},
        grid=arrays.get("grid"),
        coverage=_coverage(meta["coverage"]),
        labels=tuple(tuple(row) for row in meta["labels"]),
        outputs=outputs,
        pictures=pictures,
        geometry=geometry,
        **{k: meta[k] for k in ("axes", "layer", "method", "signed", "channels", "listed")},
        provenance=meta["provenance"],
        mark=meta.get("mark", ""),  # older archives have none
    )


def _coverage(rows: list[dict[str, Any]] | None) -> "Coverage | None":
    if rows is None:
        return None
    from graph_rewrites.coverage import ActivationRule, Coverage

    return Coverage(tuple(ActivationRule(**row) for row in rows))


def file_stems(names: Iterable[str]) -> list[str]:
    """How the files of each picture begin: its name without folders and suffix, as a slug."""
    return slugs((Path(name).stem for name in names), "image")


def slugs(texts: Iterable[str], blank: str) -> list[str]:
    """File names safe everywhere, none twice in any spelling; `blank` where nothing is left."""
    found: list[str] = []
    taken: set[str] = set()
    for text in texts:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:_LONGEST].strip("-") or blank
        if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", slug):
            slug = f"{blank}-{slug}"
        free = next(s for s in _numbered(slug) if s.casefold() not in taken)
        taken.add(free.casefold())
        found.append(free)
    return found


def _numbered(slug: str) -> Iterator[str]:
    yield slug
    for number in count(1):
        tail = f"-{number}"
        yield slug[: _LONGEST - len(tail)] + tail


def _files(
    explanation: Explanation, data: bytes, stems: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents for a folder: the archive, then the pictures of every map."""
    layer = f".{explanation.mark}" if explanation.mark else ""
    method = f"{explanation.method}{layer}"
    archive = f"{stems[0]}.{method}.npz" if len(stems) == 1 else f"{method}.npz"
    yield archive, data
    for image, stem in enumerate(stems):
        for target, mark in enumerate(_marks(explanation, image)):
            for kind, drawing in explanation.drawings(image, target).items():
                stream = io.BytesIO()
                drawing.save(stream, "PNG")
                yield f"{stem}.{method}{mark}.{kind}.png", stream.getvalue()


def _marks(explanation: Explanation, image: int) -> list[str]:
    """What tells an image's maps apart: the class, numbered where it is explained repeatedly."""
    if "T" not in explanation.axes:
        return [""]
    used = explanation.target[image].tolist()
    return [
        f".{target}" if target not in used[:t] else f".{target}-{used[:t].count(target) + 1}"
        for t, target in enumerate(used)
    ]
