"""The stamp: what canonical form did to a model, written into its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import onnx

KEY = "graph_rewrites.canonical"
VERSION = 2
"""Raised when canonical form changes, so that models stamped before are made anew."""


def canonical_facts(model: onnx.ModelProto) -> dict[str, Any]:
    """What `canonicalize` wrote into a model: empty where the model is not canonical.

    Returns:
        "version"; "batch": "free", "keep", or the reason why it could not be freed; "widened": the
        16-bit types that arithmetic was widened from; "rewritten": the operators that were
        expressed by others, where the numbers may differ by rounding.
    """
    for entry in model.metadata_props:
        if entry.key == KEY:
            return read_stamp(entry.value)
    return {}


def read_stamp(text: str) -> dict[str, Any]:
    """The facts in a stamp; empty where it is not one of this version."""
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    current = isinstance(facts, dict) and facts.get("version") == VERSION
    return facts if current else {}


def write_stamp(batch: str, widened: Iterable[str], rewritten: Iterable[str]) -> str:
    """The stamp of a model that was just made canonical."""
    return json.dumps(
        {
            "version": VERSION,
            "batch": batch,
            "widened": sorted(widened),
            "rewritten": sorted(rewritten),
        }
    )
