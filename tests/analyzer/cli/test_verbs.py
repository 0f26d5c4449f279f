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


LONG = "frame_" * 11
NAMES = (
    *(
        "\u043a\u043e\u0442.png",
        "image.png",
        "\u043f\u0451\u0441.png",
        "2.png",
        "cat.png",
        "cat!.png",
        "CAT?.png",
    ),
    *(f"{LONG}_0001.png", f"{LONG}_0002.png", "a b.png", "a-b.png"),
)


def test_pictures_whose_names_become_the_same_do_not_overwrite_each_other(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pictures = [tmp_path / "in" / name for name in NAMES]
    for path in pictures:
        path.write_bytes(picture.read_bytes())
    out = tmp_path / "out"
    answer = call("explain", model, *pictures, "-o", out, "--format", "json")
    assert answer.code == 0, answer.err
    images = json.loads(answer.out)["images"]
    for path, image in zip(pictures, images, strict=True):
        (entry,) = image["maps"]
        (archive,) = [file for file in entry["files"] if file.endswith(".npz")]
        stored = Explanation.load(archive)
        assert stored.names == (path.name,)
        assert stored.provenance["images"][0]["name"] == path.name
    assert len(list(out.iterdir())) == 3 * len(NAMES)


@pytest.mark.parametrize("asked", ["cpu", "auto"])
def test_auto_says_what_it_took(
    call: Call, model: Path, picture: Path, tmp_path: Path, asked: str
) -> None:
    for verb in (["explain", model, picture], ["demo"]):
        answer = call(*verb, "--device", asked, "-o", tmp_path, "--format", "json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        found = found.get("model", found)
        assert found["provider"] in ("CPUExecutionProvider", "CUDAExecutionProvider")
        taken = "CPU" if found["provider"].startswith("CPU") else "CUDA"
        if asked == "auto":
            assert found["provider_reason"].startswith(f"{taken}, because ")
            assert answer.err == f"device auto: {found['provider_reason']}\n"
        else:
            assert (found["provider_reason"], answer.err) == ("as asked", "")


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


@pytest.mark.parametrize("other", ["itself", "by a link"])
def test_compile_never_replaces_the_model(call: Call, tmp_path: Path, other: str) -> None:
    path = tmp_path / "good.onnx"
    onnx.save(classifier(), path)
    before, output = path.read_bytes(), path
    if other == "by a link":
        output = tmp_path / "link.onnx"
        output.hardlink_to(path)
    answer = call("compile", path, "-o", output)
    assert answer.is_one_error(2)
    assert "the model itself" in answer.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("output", ["weights.bin", "weights"])
def test_compile_never_replaces_the_model_s_weights(
    call: Call, tmp_path: Path, output: str
) -> None:
    """Neither by the file nor by the one that would hold its own weights beside it."""
    path, weights = tmp_path / "good.onnx", "weights.bin" if "." in output else "weights.data"
    onnx.save_model(
        classifier(), path, save_as_external_data=True, location=weights, size_threshold=0
    )
    before = (tmp_path / weights).read_bytes()
    answer = call("compile", path, "-o", tmp_path / output)
    assert answer.is_one_error(2)
    assert (tmp_path / weights).read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"good.onnx", weights}


@pytest.mark.parametrize("verb", ["inspect", "compile", "explain", "verify"])
def test_an_explanation_model_is_not_explained_again(
    call: Call, model: Path, picture: Path, tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "explain.onnx"
    assert call("compile", model, "-o", path).code == 0
    answer = call(verb, path, *([picture] if verb == "explain" else []))
    assert answer.is_one_error(4)
    for words in ("explain.onnx", "explanation model", "the original"):
        assert words in answer.err


@pytest.mark.parametrize("verb", ["compile", "explain"])
def test_the_folder_of_a_single_file_is_made(
    call: Call, model: Path, picture: Path, tmp_path: Path, verb: str
) -> None:
    file = tmp_path / "new" / "deep" / ("e.onnx" if verb == "compile" else "e.NPZ")
    answer = call(verb, model, *([picture] if verb == "explain" else []), "-o", file)
    assert answer.code == 0, answer.err
    assert list(file.parent.iterdir()) == [file]


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


def test_inspect_counts_the_layers_as_layer_takes_them(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    layers = json.loads(call("inspect", model, "--format", "json").out)["layers"]
    assert len(layers) > 1
    printed = call("inspect", model).out.splitlines()
    for layer in layers:
        index = layer["index"]
        assert any(line.split()[:2] == [str(index), layer["tensor"]] for line in printed)
        asked = ("--layer", index, "-o", tmp_path, "--format", "json")
        answer = call("explain", model, picture, *asked)
        (entry,) = json.loads(answer.out)["images"][0]["maps"]
        assert entry["layer"] == layer["tensor"]
        stored = Explanation.load(tmp_path / "noise.grad_cam.npz")
        assert stored.provenance["layer"] == layer["tensor"]


def test_inspect_rounds_a_stride_that_divides_nothing(call: Call, tmp_path: Path) -> None:
    uneven = classifier()
    (conv,) = (node for node in uneven.graph.node if node.op_type == "Conv")
    conv.attribute.append(onnx.helper.make_attribute("strides", [5, 5]))
    path = tmp_path / "uneven.onnx"
    onnx.save(uneven, path)
    assert "stride 4.57 × 4.57 " in call("inspect", path).out  # 32 / 7
    layers = json.loads(call("inspect", path, "--format", "json").out)["layers"]
    assert layers[0]["stride"] == [32 / 7, 32 / 7]


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
