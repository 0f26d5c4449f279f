"""The package's face: lazy, one error tree, one method table."""

import re
import subprocess
import sys

import pytest

import analyzer
from analyzer.errors import AnalyzerError, ImageError, InputError, nearest
from analyzer.files import make_folder, write_atomically
from analyzer.methods import METHODS

HEAVY = ("onnx", "onnxruntime", "onnx_graphsurgeon", "PIL", "cv2", "numpy", "graph_rewrites")


def loaded_by(code: str) -> set[str]:
    probe = f"import sys; {code}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import analyzer, analyzer.errors, analyzer.methods") == set()


def test_opencv_is_never_needed():
    code = "sys.modules['cv2'] = None; import analyzer.model, analyzer.archive"
    assert "onnxruntime" in loaded_by(code)


def test_every_public_name_resolves():
    for name in analyzer.__all__:
        assert getattr(analyzer, name) is not None
    assert dir(analyzer) == sorted(analyzer.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = analyzer.nothing


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("UsageError", 2),
        ("InputError", 3),
        ("ImageError", 3),
        ("ModelRejectedError", 4),
        ("MissingProviderError", 6),
    ],
)
def test_exit_codes(name, code):
    kind = getattr(analyzer, name)
    assert issubclass(kind, AnalyzerError)
    assert kind.exit_code == code
    assert str(kind("one\n  two")) == "one two"


def test_a_bad_picture_is_a_bad_input():
    assert issubclass(ImageError, InputError)


def test_nearest_names():
    assert nearest("grad_cm", ["grad_cam", "saliency"]) == "; nearest: grad_cam"
    assert nearest("CAT", ["tiger cat", "dog"]) == "; nearest: tiger cat"
    assert nearest("zzzz", ["grad_cam"]) == ""


def test_methods_are_named_and_cited():
    for name, method in METHODS.items():
        assert method.name == name
        assert re.search(r"(19|20)\d\d", method.citation)
        assert re.search(r"doi:10\.|arXiv:\d", method.citation)
        assert method.summary.endswith(".")
        assert method.relu in ("gradient", "deconvnet", "guided")
    with pytest.raises(TypeError):
        METHODS["other"] = None


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(analyzer.UsageError, match="No space left"):
        write_atomically(path, b"three")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(analyzer.UsageError, match="choose another"):
        make_folder(tmp_path / "file" / "out")
    with pytest.raises(analyzer.UsageError, match="choose another"):
        write_atomically(tmp_path / "none" / "a.npz", b"")
