"""Masks, boxes and similarities from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import analyzer
from analyzer import Explanation
from tests.analyzer.cli.conftest import Answer
from tests.graph_rewrites.place_models import detector, embedder, segmentation

Call = Callable[..., Answer]
MAKERS = {"seg": segmentation, "det": detector, "emb": embedder}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, make in MAKERS.items():
        paths[name] = folder / f"{name}.onnx"
        onnx.save(make(), paths[name])
        paths[name].with_suffix(".toml").write_text('[preprocess]\npreset = "tf"\n')
    return paths


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The left half of the picture."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:, :30] = 255
    path = tmp_path_factory.mktemp("mask") / "left.png"
    Image.fromarray(pixels).save(path)
    return path


def maps(call: Call, out: Path, *args: object) -> list[dict]:
    answer = call("explain", *args, "-o", out, "--format", "json")
    assert answer.code == 0, answer.err
    (image,) = json.loads(answer.out)["images"]
    return image["maps"]


def test_a_mask(call: Call, models: dict, picture: Path, mask: Path, tmp_path: Path) -> None:
    (entry,) = maps(call, tmp_path, models["seg"], picture, "-t", 2, "--mask", mask)
    (target,) = entry["targets"]
    assert (target["label"], target["mask"]) == ("2 in left.png", "left.png")
    assert entry["explained"]["objective"] == "mask"
    (archive,) = tmp_path.glob("*.npz")
    loaded = analyzer.load(models["seg"])
    expected = loaded.explain(picture, target=analyzer.Mask(2, mask))
    np.testing.assert_array_equal(Explanation.load(archive).values, expected.values)


def test_boxes(call: Call, models: dict, picture: Path, tmp_path: Path) -> None:
    (entry,) = maps(
        call, tmp_path, models["det"], picture, "-t", 1, "--box", 4, "--box", 9, "--of", "scores"
    )
    assert [(t["index"], t["box"]) for t in entry["targets"]] == [(1, 4), (1, 9)]


def test_similarity(call: Call, models: dict, picture: Path, mask: Path, tmp_path: Path) -> None:
    answer = call("explain", models["emb"], picture, "--similar-to", mask, "-o", tmp_path)
    assert answer.code == 0, answer.err
    assert "similarity to left.png" in answer.out


@pytest.mark.parametrize(
    ("model", "options", "code", "message"),
    [
        ("seg", ["--mask", "{mask}", "--box", "1"], 2, "--mask, --box exclude each other"),
        ("emb", ["--similar-to", "{mask}", "-t", "1"], 2, "exclude each other"),
        ("seg", ["--mask", "nowhere.png"], 2, "no such file"),
        ("seg", ["--mask", "{picture}", "--mask", "{mask}", "-t", "1", "-t", "2", "-t", "3"], 2,
         "do not pair"),
        ("seg", ["--of", "oud"], 2, "did you mean"),
        ("seg", ["--of", "image"], 2, "no value"),
        ("det", ["--box", "45"], 2, "0 to 44"),
        ("det", ["--mask", "{mask}"], 4, "no height and width"),
        ("emb", ["--mask", "{mask}"], 4, "no output holds scores at many places"),
    ],
)  # fmt: skip
def test_refusals(
    call: Call, models: dict, picture: Path, mask: Path, tmp_path: Path,
    model: str, options: list[str], code: int, message: str,
) -> None:  # fmt: skip
    filled = [option.format(mask=mask, picture=picture) for option in options]
    answer = call("explain", models[model], picture, *filled, "-o", tmp_path)
    assert answer.code == code, answer.err
    assert message in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err


def test_a_mask_of_another_size(call: Call, models: dict, picture: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.new("L", (9, 9), 255).save(small)
    answer = call("explain", models["seg"], picture, "--mask", small, "-o", tmp_path / "out")
    assert answer.is_one_error(2)
    assert "9 × 9 pixels does not fit noise.png of 40 × 60" in answer.err


@pytest.mark.parametrize(
    ("model", "options", "inputs"),
    [
        ("seg", [], ["image", "target", "mask"]),
        ("det", ["--of", "scores"], ["image", "target", "box"]),
        ("emb", ["--objective", "similarity"], ["image", "reference"]),
    ],
)
def test_compile(
    call: Call, models: dict, tmp_path: Path, model: str, options: list[str], inputs: list[str]
) -> None:
    path = tmp_path / "out.onnx"
    answer = call("compile", models[model], *options, "-o", path, "--format", "json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["inputs"] == inputs
    assert [value.name for value in onnx.load(path).graph.input] == inputs


@pytest.mark.parametrize(
    ("model", "objectives", "default"),
    [
        ("seg", {"out": ["mask", "box", "similarity"]}, "backbone"),
        ("det", {"scores": ["box", "similarity"], "kept": []}, "trunk"),
        ("emb", {"vector": ["class", "similarity"]}, "r1"),
    ],
)
def test_inspect_lists_outputs_and_how_they_are_explained(
    call: Call, models: dict, model: str, objectives: dict, default: str
) -> None:
    answer = call("inspect", models[model], "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert {o["name"]: o["objectives"] for o in found["outputs"]} == objectives
    assert [layer["tensor"] for layer in found["layers"] if layer["default"]] == [default]
    text = call("inspect", models[model]).out
    assert f"(explained by {', '.join(next(iter(objectives.values())))})" in text
    assert ("(not explained)" in text) == (model == "det")


def test_inspect_of_another_tensor(call: Call, models: dict) -> None:
    answer = call("inspect", models["seg"], "--of", "small", "--format", "json")
    scores = json.loads(answer.out)["scores"]
    assert (scores["tensor"], scores["position_axes"]) == ("small", [2, 3])
