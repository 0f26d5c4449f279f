"""The wheel carries what the demo needs, and no more; it works far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout with the build backend that is installed here."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("onnx_analyzer-*.whl")
    return built


def test_it_holds_both_packages_and_the_demo_s_files(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        "analyzer/__init__.py",
        "analyzer/py.typed",
        "graph_rewrites/__init__.py",
        "graph_rewrites/py.typed",
    }
    data = {
        f"analyzer/_models/{path.name}"
        for path in (root / "models").iterdir()
        if path.is_file() and path.suffix not in {".py", ".md"}
    }
    assert "analyzer/_models/shapes.onnx" in data
    assert expected | data <= names


def test_it_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"analyzer", "graph_rewrites"}
    strange = [
        name
        for name in names
        if "__pycache__" in name or (name.startswith("analyzer/_models/") and name.endswith(".py"))
    ]
    assert strange == []
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_demo_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = f"""
import analyzer, graph_rewrites, sys
assert all(m.__file__.startswith({str(site)!r}) for m in (analyzer, graph_rewrites))
from analyzer.cli import main
sys.argv = ["onnx-analyzer", "demo"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((elsewhere / "onnx-analyzer-demo").glob("*.png"))
    assert str(elsewhere / "onnx-analyzer-demo") in done.stdout
