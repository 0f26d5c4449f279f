"""What only a GPU can show, beside the time: where the nodes run, and whether the numbers agree."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

import graph_rewrites as gr
from analyzer.session import PRECISIONS
from analyzer.specialized import SpecializedSession
from benchmarks.speed.networks import Opened


def on_cuda(opened: Opened, batch: int, threads: int) -> dict[str, Any]:
    """The gradient on CUDA.

    Returns:
        "nodes": how many run under each provider. "distance": ‖Δ‖/‖g‖ from the CPU's gradient, for
        each precision.
    """
    model = gr.explanation_model(opened.model, "gradient")
    feeds = {model.graph.input[0].name: opened.noise(batch), "target": np.zeros(batch, np.int64)}
    expected = _gradient(SpecializedSession(model, "cpu", threads).run(feeds))
    distance = {}
    for precision in PRECISIONS:
        session = SpecializedSession(model, "cuda", threads, precision=precision)
        found = _gradient(session.run(feeds))
        assert session.settings["lowered"] == "cuda", session.settings["lowered"]
        distance[precision] = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    nodes, _ = SpecializedSession(model, "cuda", threads).profile(feeds)
    return {"nodes": dict(Counter(node.provider for node in nodes)), "distance": distance}


def _gradient(outputs: dict[str, np.ndarray]) -> np.ndarray:
    return outputs["map/gradient"].astype(np.float64)
