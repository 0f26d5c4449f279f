"""`verify`: text and JSON say the same, and the exit code is the verdict."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.analyzer.cli.conftest import SIZE, Answer
from tests.analyzer.cli.test_bad_input import no_onnx, without_rule
from tests.analyzer.small_models import mixing

Call = Callable[..., Answer]


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "mixing.onnx"
    onnx.save(mixing(), path)
    return path


def test_a_right_model_in_words(call: Call, model: Path) -> None:
    answer = call("verify", model)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("classifier.onnx sha256 ")
    assert f"picture  3 × {SIZE} × {SIZE}" in answer.out
    assert sum(line.strip().startswith("ok ") for line in lines) >= 6
    assert lines[-1].strip().startswith("right: ")
    assert "image: 4 of 4 directions" in answer.err


def test_the_same_as_json(call: Call, model: Path) -> None:
    answer = call("verify", model, "--quick", "--format", "json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document["schema_version"] == 1
    assert document["passed"] is True
    assert document["picture"] == [3, SIZE, SIZE]
    for check in document["checks"]:
        assert set(check) == {"name", "title", "verdict", "figure", "bar", "note", "seconds"}
        assert check["verdict"] in ("ok", "not run")
        assert check["verdict"] == "not run" or check["figure"] <= check["bar"]
    assert "image: 1 of 1 directions" in answer.err


def test_the_layer_can_be_chosen(call: Call, model: Path) -> None:
    answer = call("verify", model, "--quick", "--layer", "conv", "--format", "json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["layer"] == "conv"
    assert call("verify", model, "--layer", "nowhere").is_one_error(2)
    answer = call("verify", model, "--quick", "--layer", "0", "--format", "json")
    assert json.loads(answer.out)["layer"] == "conv"


def test_an_error_is_a_finding(call: Call, bad: Path) -> None:
    answer = call("verify", bad)
    assert answer.code == 1, answer.err
    assert answer.out.splitlines()[-1].strip().startswith("wrong: ")
    assert "1 failed" in answer.out
    document = json.loads(call("verify", bad, "--format", "json").out)
    failed = [check["name"] for check in document["checks"] if check["verdict"] == "failed"]
    assert failed == ["batch"]
    assert document["passed"] is False


def test_a_rejected_model_is_no_finding(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.onnx"
    page.write_bytes(no_onnx())
    assert call("verify", page).is_one_error(4)
    unruly = tmp_path / "unruly.onnx"
    onnx.save(without_rule(), unruly)
    assert call("verify", unruly).is_one_error(4)
    assert call("verify", tmp_path / "nowhere.onnx").is_one_error(2)
