"""What turns cotangents into maps, inside the graph."""

from __future__ import annotations

from graph_rewrites.heads.explanation import explanation_model
from graph_rewrites.heads.methods import METHODS, MapMethod

__all__ = ["METHODS", "MapMethod", "explanation_model"]
