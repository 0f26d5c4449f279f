"""Who may import whom: every import statement of both packages is read from the syntax tree."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = {"torch", "torchvision", "timm", "tensorflow", "keras", "tf2onnx", "jax", "jax2onnx"}
# What each package may import beside itself and the standard library.
ALLOWED = {
    "graph_rewrites": {"onnx", "onnx_graphsurgeon", "numpy", "ml_dtypes"},
    "analyzer": {"graph_rewrites", "onnx", "onnxruntime", "numpy", "PIL", "cv2", "click", "jinja2"}
    | {"google"}  # protobuf's errors, which onnx lets through
    | FRAMEWORKS,
}
# Modules that one place alone may import.
ONLY_IN = {
    "onnx_graphsurgeon": "graph_rewrites/graph.py",
    "onnxruntime": "analyzer/session.py",
    "click": "analyzer/cli/",
    "analyzer.cli": "analyzer/cli/",
    **dict.fromkeys(FRAMEWORKS, "analyzer/sources/"),
}
# Modules that may not be needed to import ours: they are heavy, optional or cannot load everywhere.
ONLY_LAZILY = FRAMEWORKS | {"cv2"}


def imports(source: str, package: str) -> Iterator[tuple[str, str]]:
    """Every imported name in full, and when: "eager", "lazy" in a function, or for "types"."""
    tree = ast.parse(source)
    when = {
        id(inner): kind
        for outer in ast.walk(tree)
        if (kind := _deferred(outer)) is not None
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, when.get(id(node), "eager")
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                yield f"{base}.{alias.name}", when.get(id(node), "eager")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    parents = package.split(".")
    kept = parents[: len(parents) - node.level + 1] if node.level else []
    return ".".join([*kept, *filter(None, [node.module])])


def _deferred(node: ast.AST) -> str | None:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return "types"
    return "lazy" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


def violations(source: str, path: str) -> list[str]:
    """The law's sentences that the file at `path` (relative to the checkout) breaks."""
    package = ".".join(Path(path).parts[:-1])
    home = Path(path).parts[0]
    found = []
    for name, when in imports(source, package):
        top = name.partition(".")[0]
        if top != home and top not in ALLOWED[home] and top not in sys.stdlib_module_names:
            found.append(f"{path}: {home} may not import {name}")
        for guarded, place in ONLY_IN.items():
            guards = name == guarded or name.startswith(f"{guarded}.")
            if guards and when != "types" and not path.startswith(place):
                found.append(f"{path}: {name} belongs to {place} alone")
        if top in ONLY_LAZILY and when == "eager":
            found.append(f"{path}: {name} is imported when the module is, not when it is needed")
    return found


def files() -> list[str]:
    found = (file for home in ALLOWED for file in (ROOT / home).rglob("*.py"))
    return sorted(file.relative_to(ROOT).as_posix() for file in found)


@pytest.mark.parametrize("path", files())
def test_imports_flow_downward(path: str) -> None:
    assert violations((ROOT / path).read_text(encoding="utf-8"), path) == []


def test_both_packages_are_read() -> None:
    assert {path.partition("/")[0] for path in files()} == set(ALLOWED)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("graph_rewrites/reverse.py", "import analyzer"),
        ("graph_rewrites/reverse.py", "def f():\n    from analyzer.session import run"),
        ("graph_rewrites/rules/relu.py", "import onnxruntime as ort"),
        ("graph_rewrites/rules/relu.py", "from PIL import Image"),
        ("graph_rewrites/emit.py", "import onnx_graphsurgeon as gs"),
        ("graph_rewrites/emit.py", "import scipy.ndimage"),
        ("analyzer/model.py", "import onnxruntime"),
        ("analyzer/model.py", "from .cli import main"),
        ("analyzer/model.py", "from . import cli"),
        ("analyzer/methods/grad_cam.py", "from ..cli.demo import demo"),
        ("analyzer/model.py", "import click"),
        ("analyzer/heatmap.py", "import cv2"),
        ("analyzer/heatmap.py", "if True:\n    import cv2"),
        ("analyzer/sources/pytorch.py", "import torch"),
        ("analyzer/model.py", "def f():\n    import torch"),
    ],
)
def test_a_planted_breach_is_found(path: str, source: str) -> None:
    assert violations(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("graph_rewrites/graph.py", "import onnx_graphsurgeon as gs"),
        ("graph_rewrites/reverse.py", "import math\nfrom .rules import relu"),
        ("analyzer/session.py", "import onnxruntime as ort"),
        ("analyzer/model.py", "import graph_rewrites as gr\nfrom . import session"),
        ("analyzer/heatmap.py", "def f():\n    import cv2"),
        ("analyzer/sources/pytorch.py", "if TYPE_CHECKING:\n    import torch"),
        ("graph_rewrites/node.py", "if TYPE_CHECKING:\n    import onnx_graphsurgeon as gs"),
        ("analyzer/cli/demo.py", "import click\nfrom ..session import run"),
    ],
)
def test_what_the_law_allows_passes(path: str, source: str) -> None:
    assert violations(source, path) == []
