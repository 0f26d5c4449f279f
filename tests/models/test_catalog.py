"""The catalogue of known models keeps to the schema that stands at its head."""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from analyzer.declaration import read_preprocess

MODELS = Path(__file__).resolve().parents[2] / "models"
CATALOG: dict[str, Any] = tomllib.loads((MODELS / "catalog.toml").read_text(encoding="utf-8"))
ENTRIES: dict[str, dict[str, Any]] = CATALOG["models"]

NEEDED = {"title": str, "source": str, "licence": str, "preprocess": dict}
OPTIONAL = {"sha256": list, "members": list, "labels": str}
LICENCES = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-NC-4.0", "MIT"}


def _names(label_set: list[str] | dict[str, Any]) -> list[str]:
    if isinstance(label_set, list):
        return label_set
    lines = (MODELS / label_set["file"]).read_text(encoding="utf-8").splitlines()
    return [*label_set.get("first", []), *lines]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_tables_are_the_documented_ones() -> None:
    assert set(CATALOG) == {"demo", "labels", "models"}
    assert set(CATALOG["demo"]) == {"model", "image"}
    for label_set in CATALOG["labels"].values():
        assert isinstance(label_set, list) or set(label_set) <= {"file", "first"}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_keeps_to_the_schema(name: str) -> None:
    entry = ENTRIES[name]
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert set(NEEDED) <= set(entry) <= set(NEEDED) | set(OPTIONAL)
    for key, kind in (NEEDED | OPTIONAL).items():
        assert isinstance(entry.get(key, kind()), kind), key
    assert entry["licence"] in LICENCES
    assert "labels" not in entry or entry["labels"] in CATALOG["labels"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in entry.get("sha256", []))
    assert "://" not in entry["source"]


@pytest.mark.parametrize("name", ENTRIES)
def test_its_preprocessing_is_readable(name: str) -> None:
    read_preprocess(ENTRIES[name]["preprocess"], name)


def test_no_file_and_no_member_is_described_twice() -> None:
    hashes = [digest for entry in ENTRIES.values() for digest in entry.get("sha256", [])]
    members = [
        (entry["source"], member)
        for entry in ENTRIES.values()
        for member in entry.get("members", [])
    ]
    assert len(hashes) == len(set(hashes))
    assert len(members) == len(set(members))


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("imagenet", 1000, {0: "tench", 281: "tabby", 999: "toilet tissue"}),
        ("imagenet_background", 1001, {0: "background", 1: "tench", 282: "tabby"}),
        ("cifar10", 10, {0: "airplane", 9: "truck"}),
        ("mnist", 10, {8: "8"}),
        ("shapes", 8, {0: "circle"}),
    ],
)
def test_label_sets(name: str, count: int, some: dict[int, str]) -> None:
    names = _names(CATALOG["labels"][name])
    assert len(names) == count
    assert all(label == label.strip() and label for label in names)
    for index, word in some.items():
        assert names[index].split(",")[0] == word


def test_the_demo_is_the_trained_network() -> None:
    from models.scenes import CLASSES, SIZE

    sidecar = tomllib.loads((MODELS / "shapes.toml").read_text(encoding="utf-8"))
    entry = ENTRIES["shapes"]
    assert list(CLASSES) == sidecar["labels"] == CATALOG["labels"]["shapes"]
    assert entry["sha256"] == [_digest(MODELS / CATALOG["demo"]["model"])]
    declared = read_preprocess(sidecar["preprocess"], "shapes.toml")
    catalogued = read_preprocess({**entry["preprocess"], "size": [SIZE, SIZE]}, "catalogue")
    assert declared == catalogued


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mobilenet_v2_imagenet_qdq.onnx", "mobilenet_v2_tf_quant"),
        ("mobilenet_v2_imagenet_f32.onnx", "mobilenet_v2_tf_quant"),
        ("mobilenet_v2_imagenet_uint8.tflite", "mobilenet_v2_tf_quant"),
        ("squeezenet1.1_imagenet_fp16.onnx", "squeezenet1_1_caffe"),
        ("mnist_cntk.onnx", "mnist_cntk"),
        ("cifar10_pytorch.onnx", "cifar10_pytorch"),
        ("resnet8_cifar10_keras.h5", "resnet8_cifar10"),
    ],
)
def test_the_hashes_are_those_of_the_files(shared: Path, file: str, name: str) -> None:
    assert _digest(shared / "models" / file) in ENTRIES[name]["sha256"]
