"""Whether a measurement is of the present code: of the code as text, and of what it makes."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

import onnx

import graph_rewrites
import tests
from graph_rewrites.canonical.functions import all_nodes
from graph_rewrites.weights import detach, values

_REWRITER = Path(graph_rewrites.__file__).parent
_LOWERING = _REWRITER / "lowering"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
_DIGITS = 12


@cache
def fingerprint() -> str:
    """Of the random weights and of `graph_rewrites` without `lowering`, which comes after it."""
    weights = Path(tests.__file__).parent / "oracles/weights.py"
    lowering = set(_LOWERING.rglob("*.py"))
    return code_digest(weights, *sorted(set(_REWRITER.rglob("*.py")) - lowering))


@cache
def lowering_fingerprint() -> str:
    """Of `graph_rewrites.lowering`."""
    return code_digest(*sorted(_LOWERING.rglob("*.py")))


def code_digest(*paths: Path) -> str:
    """Twelve hexadecimal digits of the files' code, their comments and docstrings left out."""
    digest = hashlib.sha256()
    for path in paths:
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        digest.update(f"{path.name}\n{ast.unparse(tree)}\n".encode())
    return digest.hexdigest()[:_DIGITS]


def model_digest(*models: onnx.ModelProto) -> str:
    """As many of what the models compute: nodes and weights, without notes and declared types."""
    digest = hashlib.sha256()
    for model in models:
        light, bulk = detach(model)
        for message in (light, light.graph, *all_nodes(light.graph)):
            message.ClearField("metadata_props")
            message.ClearField("doc_string")
        light.graph.ClearField("value_info")
        digest.update(light.SerializeToString(deterministic=True))
        for name, tensor in bulk.items():
            digest.update(name.encode())
            digest.update(values(tensor).tobytes())
    return digest.hexdigest()[:_DIGITS]
