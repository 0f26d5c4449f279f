"""The verbs at work on a small model: what they print, what they write, and that both agree."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from analyzer import Explanation
from analyzer.methods import METHODS
from tests.analyzer.cli.conftest import CLASSES, SIZE, Answer, classifier
from tests.analyzer.cli.test_bad_input import without_rule

Call = Callable[..., Answer]


def test_explain_writes_the_map_that_the_api_reads(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    answer = call("explain", model, picture, "-t", "triangle", "-o", out)
    assert answer.code == 0, answer.err
    assert answer.err == ""
    assert "triangle (2, score " in answer.out
    (archive,) = out.glob("*.npz")
    stored = Explanation.load(archive)
    assert stored.target.tolist() == [2]
    assert stored.values.shape == (1, SIZE, SIZE)
    with Image.open(out / "noise.grad_cam.overlay.png") as overlay, Image.open(picture) as original:
        assert overlay.size == original.size
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_runs(
    call: Call, model: Path, picture: Path, tmp_path: Path, method: str
) -> None:
    answer = call("explain", model, picture, "-m", method, "-o", tmp_path, "--format", "json")
    assert answer.code == 0, answer.err
    (image,) = json.loads(answer.out)["images"]
    (entry,) = image["maps"]
    assert entry["method"] == method
    assert (entry["layer"] is not None) == METHODS[method].needs_layer
    assert all(Path(file).is_file() for file in entry["files"])


def test_several_methods_and_classes_of_one_picture(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    wanted = ["-m", "grad_cam", "-m", "guided_backprop", "-t", "star", "-t", "0"]
    answer = call("explain", model, picture, *wanted, "-o", tmp_path, "--format", "json")
    document = json.loads(answer.out)
    assert document["schema_version"] == 1
    assert document["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert document["model"]["provider"] == "CPUExecutionProvider"
    (image,) = document["images"]
    assert [entry["method"] for entry in image["maps"]] == ["grad_cam", "guided_backprop"]
    for entry in image["maps"]:
        targets = [(target["index"], target["label"]) for target in entry["targets"]]
        assert targets == [(3, "star"), (0, "circle")]
    scores = [[target["score"] for target in entry["targets"]] for entry in image["maps"]]
    assert scores[0] == pytest.approx(scores[1])


def test_jsonl_has_one_line_for_each_picture_the_bad_ones_included(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    out = tmp_path / "out"
    answer = call("explain", model, bad, picture, "-o", out, "--format", "jsonl")
    assert answer.code == 3
    first, second = map(json.loads, answer.out.splitlines())
    assert first["image"] == str(bad)
    assert "bad.png" in first["error"]
    assert second["image"] == str(picture)
    assert second["maps"][0]["targets"][0]["label"] in {"circle", "square", "triangle", "star"}


def test_pictures_of_the_same_name_do_not_overwrite_each_other(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    twins = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        twins.append(tmp_path / folder / "cat.png")
        twins[-1].write_bytes(picture.read_bytes())
    out = tmp_path / "out"
    answer = call("explain", model, *twins, "-o", out, "--format", "json")
    files = [
        file
        for image in json.loads(answer.out)["images"]
        for entry in image["maps"]
        for file in entry["files"]
    ]
    assert len(files) == len(set(files)) == len(list(out.iterdir()))


def test_one_map_as_one_file(call: Call, model: Path, picture: Path, tmp_path: Path) -> None:
    answer = call("explain", model, picture, "-o", tmp_path / "map.npz")
    assert answer.code == 0, answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]
    assert Explanation.load(tmp_path / "map.npz").method == "grad_cam"


def test_several_maps_are_no_single_file(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    answer = call("explain", model, picture, picture, "-o", tmp_path / "map.npz")
    assert answer.is_one_error(2)


def test_a_guessed_preprocessing_is_said(call: Call, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    onnx.save(classifier(), path)
    answer = call("explain", path, picture, "-o", tmp_path / "out")
    assert answer.code == 0
    (line,) = answer.err.splitlines()
    assert line.startswith("warning: ")
    assert "--preprocess" in line or "preprocess" in line


def test_compile_writes_a_model_that_runs_without_us(
    call: Call, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "explain.onnx"
    answer = call("compile", model, "-m", "guided_grad_cam", "-o", path, "--format", "json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document["bytes"] == path.stat().st_size
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert document["inputs"] == [value.name for value in session.get_inputs()]
    assert document["outputs"] == [value.name for value in session.get_outputs()]
    image = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    feeds = {"image": image, "target": np.array([1, -1], np.int64)}
    map_, used = session.run(["map/guided_grad_cam", "target/used"], feeds)
    assert map_.shape == (2, 3, SIZE, SIZE)
    assert used[0] == 1
    assert np.any(map_)


def test_inspect_says_what_there_is_before_any_run(call: Call, model: Path) -> None:
    answer = call("inspect", model, "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 3, 32, 32]}]
    assert found["image"] == {"input": "image", "layout": "NCHW", "channels": 3, "size": [32, 32]}
    assert found["preprocess"]["known"] is True
    assert "classifier.toml" in found["preprocess"]["origin"]
    assert found["batch"]["free"] is True
    assert found["scores"]["tensor"] == "logits"
    assert found["scores"]["peeled"] == ["Softmax"]
    assert found["scores"]["classes"] == found["scores"]["labels"] == CLASSES
    (default,) = [layer for layer in found["layers"] if layer["default"]]
    assert default["shape"][1:] == [8, SIZE, SIZE]
    verdicts = {row["operator"]: row["verdict"] for row in found["operators"]}
    assert verdicts["Conv"] == verdicts["Relu"] == "rule"
    (relu,) = found["activations"]["rules"]
    assert (relu["node"], relu["kind"], relu["rule"]) == ("relu1", "relu", "guided")
    assert found["obstacles"] == []


def test_inspect_as_text_has_the_same(call: Call, model: Path) -> None:
    answer = call("inspect", model)
    assert answer.code == 0, answer.err
    for words in ("classifier.onnx", "NCHW", "free", "Softmax", "Conv", "relu1", "guided"):
        assert words in answer.out


def test_inspect_shows_what_is_missing_beside_all_the_rest(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "strange.onnx"
    onnx.save(without_rule(), path)
    answer = call("inspect", path, "--format", "json")
    assert answer.is_one_error(4)
    found = json.loads(answer.out)
    verdicts = {row["operator"]: row["verdict"] for row in found["operators"]}
    assert verdicts["Unique"] == "refused"
    assert verdicts["Conv"] == "rule"
    assert found["scores"]["tensor"] == "logits"
    assert found["layers"]
    (obstacle,) = found["obstacles"]
    assert "Unique" in obstacle
    assert answer.err == f"error: {obstacle}\n"
    assert "refused" in call("inspect", path).out
