"""What forward and gradient consist of: where the time of the lowered model goes."""

from __future__ import annotations

import numpy as np

import graph_rewrites as gr
from analyzer.profile import profile_of
from analyzer.specialized import SpecializedSession
from benchmarks.speed.networks import Opened
from benchmarks.speed.parts import PARTS


def breakdown(opened: Opened, batch: int, threads: int) -> dict[str, float]:
    """Seconds of each part of the lowered gradient of `batch` pictures, as the analyzer runs it."""
    model = gr.explanation_model(opened.model, "gradient")
    feeds = {model.graph.input[0].name: opened.noise(1), "target": np.zeros(1, np.int64)}
    together = 1 if batch < threads else threads  # each on a thread
    nodes, run = SpecializedSession(model, "cpu", threads // together).profile(feeds)
    seconds = dict.fromkeys(PARTS, 0.0)
    for operator in profile_of(nodes, run, {}, "cpu").operators:
        part = operator.phase
        if part not in ("forward", "layout"):
            named = (name for name, operators in PARTS.items() if operator.operator in operators)
            part = next(named, "other")
        seconds[part] += operator.seconds * batch / together
    return seconds
