"""What forward and gradient consist of: where the time of the lowered model goes."""

from __future__ import annotations

import numpy as np

import graph_rewrites as gr
from analyzer.profile import profile_of
from analyzer.specialized import SpecializedSession
from benchmarks.speed.networks import Opened
from benchmarks.speed.parts import PARTS


def breakdown(opened: Opened, batch: int, threads: int) -> dict[str, float]:
    """Seconds of each part in one run of the lowered gradient."""
    model = gr.explanation_model(opened.model, "gradient")
    feeds = {model.graph.input[0].name: opened.noise(batch), "target": np.zeros(batch, np.int64)}
    nodes, run = SpecializedSession(model, "cpu", threads).profile(feeds)
    seconds = dict.fromkeys(PARTS, 0.0)
    for operator in profile_of(nodes, run, {}, "cpu").operators:
        part = operator.phase
        if part not in ("forward", "layout"):
            named = (name for name, operators in PARTS.items() if operator.operator in operators)
            part = next(named, "other")
        seconds[part] += operator.seconds
    return seconds
