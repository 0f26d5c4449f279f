"""Whatever is wrong with the input: one line, the right exit code, and nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from analyzer import Analyzer
from analyzer.session import provider_report
from tests.analyzer.cli.conftest import OPSET, SIZE, Answer, classifier

Call = Callable[..., Answer]
RAW = ("--preprocess", "raw")


def explain(call: Call, model: Path, image: Path, out: Path, *more: object) -> Answer:
    """Explain with the output folder `out`."""
    return call("explain", model, image, "-o", out, *more)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "bad.onnx"
    onnx.save(model, path)
    return path


def no_onnx() -> bytes:
    return b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"


def truncated() -> bytes:
    data = classifier().SerializeToString()
    return data[: len(data) // 2]


@pytest.mark.parametrize("content", [no_onnx, truncated, bytes], ids=["html", "truncated", "empty"])
@pytest.mark.parametrize("verb", ["inspect", "compile", "explain"])
def test_a_file_that_is_no_model(
    call: Call, tmp_path: Path, picture: Path, verb: str, content: Callable[[], bytes]
) -> None:
    bad, out = tmp_path / "bad.onnx", tmp_path / "out"
    bad.write_bytes(content())
    more = {"inspect": [], "compile": ["-o", out], "explain": [picture, "-o", out]}[verb]
    answer = call(verb, bad, *more)
    assert answer.is_one_error(4)
    assert "bad.onnx" in answer.err
    assert not out.exists()


def test_a_model_that_is_not_there(call: Call, tmp_path: Path, picture: Path) -> None:
    answer = explain(call, tmp_path / "nowhere.onnx", picture, tmp_path / "out")
    assert answer.is_one_error(2)
    assert "nowhere.onnx" in answer.err


def test_a_model_without_an_image_input(call: Call, tmp_path: Path, picture: Path) -> None:
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 10])
    chances = helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["rows"], ["chances"])], "table", [rows], [chances]
    )
    opset = [helper.make_opsetid("", OPSET)]
    path = saved(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path)
    answer = explain(call, path, picture, tmp_path / "out")
    assert answer.is_one_error(4)
    assert "'rows'" in answer.err
    assert not (tmp_path / "out").exists()


UNKNOWN = helper.make_node("Wobble", ["relu"], ["features"], name="strange", domain="com.example")


@pytest.mark.parametrize("verb", ["compile", "explain"])
def test_an_unknown_operator(call: Call, tmp_path: Path, picture: Path, verb: str) -> None:
    domain = (helper.make_opsetid("com.example", 3),)
    path, out = saved(classifier(middle=(UNKNOWN,), imports=domain), tmp_path), tmp_path / "out"
    answer = call(verb, path, *([picture, *RAW] if verb == "explain" else []), "-o", out)
    assert answer.is_one_error(4)
    for word in ("com.example.Wobble", "'strange'", "opset 3", "standard operators"):
        assert word in answer.err
    assert not out.exists()


def without_rule() -> onnx.ModelProto:
    """A standard operator that runs, but that cannot be differentiated."""
    return classifier(
        middle=(
            helper.make_node("Unique", ["relu"], ["values"], name="strange"),
            helper.make_node("ReduceMean", ["values"], ["level"], keepdims=0),
            helper.make_node("Mul", ["relu", "level"], ["features"]),
        )
    )


@pytest.mark.parametrize("verb", ["compile", "explain"])
def test_an_operator_without_a_rule(call: Call, tmp_path: Path, picture: Path, verb: str) -> None:
    path, out = saved(without_rule(), tmp_path), tmp_path / "out"
    method = ["-m", "saliency"]
    answer = call(verb, path, *([picture, *RAW] if verb == "explain" else []), *method, "-o", out)
    assert answer.is_one_error(4)
    for word in ("Unique", "'strange'", f"opset {OPSET}", "choose a layer behind it"):
        assert word in answer.err
    assert not out.exists()


def control_flow() -> onnx.ModelProto:
    """Takes a branch that the picture's brightness chooses."""
    branches = {}
    for name, op_type in (("then_branch", "Neg"), ("else_branch", "Abs")):
        taken = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(
            [helper.make_node(op_type, ["relu"], [name])], name, [], [taken]
        )
    middle = (
        helper.make_node("ReduceMean", ["relu"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["bright"], to=TensorProto.BOOL),
        helper.make_node("If", ["bright"], ["features"], name="branch", **branches),
    )
    return classifier(middle=middle)


def test_control_flow_that_the_picture_decides(call: Call, tmp_path: Path, picture: Path) -> None:
    path = saved(control_flow(), tmp_path)
    answer = explain(call, path, picture, tmp_path / "out", "-m", "saliency", *RAW)
    assert answer.is_one_error(4)
    assert "branch" in answer.err
    assert not (tmp_path / "out").exists()


def test_an_unknown_layer_names_the_nearest(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    answer = explain(call, model, picture, tmp_path / "out", "--layer", "relv")
    assert answer.is_one_error(2)
    assert "'relv'" in answer.err
    assert "relu" in answer.err
    assert not (tmp_path / "out").exists()


def test_an_unknown_class_names_the_nearest(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    answer = explain(call, model, picture, tmp_path / "out", "-t", "triangel")
    assert answer.is_one_error(2)
    assert "triangle" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["4", "-2", "99999999999"])
def test_a_class_out_of_range(
    call: Call, model: Path, picture: Path, tmp_path: Path, target: str
) -> None:
    answer = explain(call, model, picture, tmp_path / "out", "-t", target)
    assert answer.is_one_error(2)
    assert target in answer.err
    assert "0 to 3" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_picture_that_does_not_decode(
    call: Call, model: Path, picture: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(picture.read_bytes()[:200])
    answer = explain(call, model, bad, tmp_path / "out")
    assert answer.is_one_error(3)
    assert "bad.png" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_not_there(call: Call, model: Path, tmp_path: Path) -> None:
    answer = explain(call, model, tmp_path / "nowhere.png", tmp_path / "out")
    assert answer.is_one_error(3)
    assert "nowhere.png" in answer.err


def test_one_bad_picture_among_many(call: Call, model: Path, picture: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    twin = tmp_path / "twin.png"
    twin.write_bytes(picture.read_bytes())
    answer = call("explain", model, picture, bad, twin, "-o", tmp_path / "out")
    assert answer.code == 3
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "bad.png" in errors[0]
    assert "2 of 3" in answer.err
    stems = {path.name.partition(".")[0] for path in (tmp_path / "out").iterdir()}
    assert stems == {"noise", "twin"}


def test_a_model_with_channels_that_no_picture_has(
    call: Call, picture: Path, tmp_path: Path
) -> None:
    path = saved(classifier(channels=4), tmp_path)
    answer = explain(call, path, picture, tmp_path / "out", *RAW)
    assert answer.is_one_error(3)
    assert "4 channels" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_missing_provider(call: Call, model: Path, picture: Path, tmp_path: Path) -> None:
    if provider_report().loads["CUDAExecutionProvider"]:
        pytest.skip("CUDA loads here, so it is not missing")
    answer = explain(call, model, picture, tmp_path / "out", "--device", "cuda")
    assert answer.is_one_error(6)
    assert "cuda" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "deeper/down"])
def test_an_output_that_cannot_be_written(
    call: Call, model: Path, picture: Path, tmp_path: Path, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("kept", encoding="utf-8")
    answer = explain(call, model, picture, file / below)
    assert answer.is_one_error(2)
    assert str(file) in answer.err
    assert file.read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("verb", ["compile", "demo"])
def test_an_output_below_a_file(call: Call, model: Path, tmp_path: Path, verb: str) -> None:
    file = tmp_path / "file"
    file.write_text("kept", encoding="utf-8")
    answer = call(verb, *([model] if verb == "compile" else []), "-o", file / "out")
    assert answer.is_one_error(2)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("verb", "name"), [("compile", "x.onnx"), ("explain", "x.npz")])
def test_a_folder_where_a_file_is_written(
    call: Call, model: Path, picture: Path, tmp_path: Path, verb: str, name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def late(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(Analyzer, verb, late)
    folder = tmp_path / name
    folder.mkdir()
    answer = call(verb, model, *([picture] if verb == "explain" else []), "-o", folder)
    assert answer.is_one_error(2)
    assert "it is a folder" in answer.err


def test_a_write_that_fails_leaves_nothing(
    call: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    answer = call("compile", model, "-o", tmp_path / "explain.onnx")
    assert answer.is_one_error(2)
    assert "No space left" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "near"),
    [
        ("--preprocess", "imagnet", "imagenet"),
        ("--labels", "nowhere.txt", "nowhere.txt"),
        ("--method", "grad-cam", "grad_cam"),
        ("--device", "gpu", "cuda"),
    ],
)
def test_a_wrong_option_names_what_there_is(
    call: Call, model: Path, picture: Path, tmp_path: Path, option: str, value: str, near: str
) -> None:
    answer = explain(call, model, picture, tmp_path / "out", option, value)
    assert answer.is_one_error(2)
    assert near in answer.err
    assert not (tmp_path / "out").exists()


def test_escapes_in_names_do_not_reach_the_terminal(call: Call, tmp_path: Path) -> None:
    hostile = classifier()
    red = "\x1b[31mred\x1b]0;title\x07\u202e"
    for node in hostile.graph.node:
        for names in (node.input, node.output):
            names[:] = [red if name == "relu" else name for name in names]
    answer = call("inspect", saved(hostile, tmp_path))
    assert answer.code == 0, answer.err
    assert "red" in answer.out
    assert not {"\x1b", "\x07", "\u202e"} & set(answer.out + answer.err)


def test_the_size_is_said_where_nothing_fixes_it(call: Call, picture: Path, tmp_path: Path) -> None:
    open_size = classifier()
    for dim in open_size.graph.input[0].type.tensor_type.shape.dim[2:]:
        assert dim.dim_value == SIZE
        dim.dim_param = "any"
    answer = explain(call, saved(open_size, tmp_path), picture, tmp_path / "out", *RAW)
    assert answer.is_one_error(2)
    assert "size" in answer.err
