"""`demo` does the main job with what the package carries, and without OpenCV."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analyzer import Explanation
from analyzer.catalog import demo_image
from tests.analyzer.cli.conftest import Answer

Call = Callable[..., Answer]
NO_CV2 = 'raise ImportError("libGL.so.1: cannot open shared object file")\n'
START = "from analyzer.cli import main; main()"


def test_the_demo_explains_two_classes_by_two_methods(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("demo", "-o", out, "--format", "json")
    assert answer.code == 0, answer.err
    assert answer.err == ""
    document = json.loads(answer.out)
    first, second = document["targets"]
    assert first["label"] != second["label"]
    assert {Path(file).name for file in document["files"]} == {p.name for p in out.iterdir()}
    for archive in out.glob("*.npz"):
        stored = Explanation.load(archive)
        assert stored.target.tolist() == [[first["index"], second["index"]]]
        one, other = stored.heatmap[0]
        assert np.abs(one - other).max() > 0.5, "the two classes' maps must differ"
    with Image.open(demo_image()) as original:
        for path in out.glob("*.overlay.png"):
            with Image.open(path) as overlay:
                assert overlay.size == original.size


def test_the_demo_says_where_its_pictures_are(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("demo")
    assert answer.code == 0, answer.err
    assert str(tmp_path / "onnx-analyzer-demo") in answer.out
    assert len(list((tmp_path / "onnx-analyzer-demo").glob("*.overlay.png"))) == 4


@pytest.mark.parametrize("verb", ["demo", "explain"])
def test_opencv_that_cannot_load_does_no_harm(
    root: Path, tmp_path: Path, verb: str, model: Path, picture: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "cv2.py").write_text(NO_CV2, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(blocked), str(root)])}
    check = "import cv2"
    refused = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=False
    )
    assert "libGL.so.1" in refused.stderr, "cv2 must not load in this test"
    args = [verb, *([str(model), str(picture)] if verb == "explain" else [])]
    done = subprocess.run(
        [sys.executable, "-c", START, *args, "-o", str(tmp_path / "out")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list((tmp_path / "out").glob("*.overlay.png"))
