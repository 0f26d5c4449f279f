"""`doctor` finds what is planted, and its verdict follows."""

import importlib.metadata
import json
from collections.abc import Callable

import pytest

from analyzer import doctor
from tests.analyzer.cli.conftest import Answer

Call = Callable[..., Answer]
_real_version = importlib.metadata.version


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Change which distributions seem to be installed; underscores stand for hyphens."""
    changed = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        found = changed[name] if name in changed else _real_version(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def pretend_child(monkeypatch: pytest.MonkeyPatch, providers: str, opencv: str) -> None:
    """Replace the code that the child processes run."""
    monkeypatch.setattr(doctor, "_PROVIDERS", providers)
    monkeypatch.setattr(doctor, "_OPENCV", opencv)


def answers(cpu: bool = True, cuda: bool = False) -> str:
    loads = {"CPUExecutionProvider": cpu, "CUDAExecutionProvider": cuda}
    return f"print({json.dumps(json.dumps({'loads': loads, 'note': 'built without CUDA'}))})"


OPENCV = """print('{"version": "5"}')"""


def test_this_installation_is_ready(call: Call) -> None:
    answer = call("doctor")
    assert answer.code == 0, answer.out
    assert "CPUExecutionProvider   loads" in answer.out
    assert answer.out.endswith("Verdict\n  ready\n")
    assert answer.err == ""


def test_json_holds_the_same(call: Call) -> None:
    answer = call("doctor", "--format", "json")
    document = json.loads(answer.out)
    assert answer.code == 0
    assert document["schema_version"] == 1
    assert document["healthy"] is True
    assert document["packages"]["onnx"] == importlib.metadata.version("onnx")
    assert document["providers"]["CPUExecutionProvider"] is True


def test_two_runtimes_that_shadow_each_other(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")
    pretend_child(monkeypatch, answers(), OPENCV)
    answer = call("doctor")
    assert answer.code == 6
    assert "installed together" in answer.out
    assert "pip uninstall" in answer.out
    assert answer.out.endswith("not ready to explain models on cpu\n")


def test_a_missing_package(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnx_graphsurgeon=None)
    pretend_child(monkeypatch, answers(), OPENCV)
    answer = call("doctor")
    assert answer.code == 6
    assert "pip install onnx-graphsurgeon" in answer.out


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("cuda", 6)])
def test_cuda_that_does_not_load(
    call: Call, monkeypatch: pytest.MonkeyPatch, device: str, code: int
) -> None:
    pretend_child(monkeypatch, answers(cuda=False), OPENCV)
    monkeypatch.setattr(doctor, "_missing_libraries", lambda: ("libcudnn.so.9",))
    answer = call("doctor", "--device", device)
    assert answer.code == code
    assert "CUDA does not load: missing libcudnn.so.9" in answer.out


def test_cuda_that_was_never_built_in(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_child(monkeypatch, answers(cuda=False), OPENCV)
    monkeypatch.setattr(doctor, "_missing_libraries", tuple)
    assert "CUDA does not load: built without CUDA" in call("doctor").out


def test_cuda_that_loads_is_no_finding(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_child(monkeypatch, answers(cuda=True), OPENCV)
    answer = call("doctor", "--device", "cuda")
    assert answer.code == 0
    assert "Note" not in answer.out


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libsomething.so.1: cannot open')", "libsomething.so.1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died with code -11"),
        ("import time; time.sleep(60)", "no answer within"),
    ],
    ids=["raises", "crashes", "hangs"],
)
def test_a_runtime_that_does_not_load(
    call: Call, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    pretend_child(monkeypatch, code, OPENCV)
    monkeypatch.setattr(doctor, "CHILD_TIMEOUT_S", 2)
    answer = call("doctor")
    assert answer.code == 6
    assert reason in answer.out


def test_opencv_without_libgl_is_a_note(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    library = "libGL.so.1: cannot open shared object file"
    pretend_child(monkeypatch, answers(), f"raise ImportError({library!r})")
    answer = call("doctor")
    assert answer.code == 0
    assert "libGL.so.1" in answer.out
    assert "opencv-python-headless" in answer.out
