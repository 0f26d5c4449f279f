"""What comes before the first map: building the explanation model, opening it, a cold command."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import graph_rewrites as gr
from analyzer.specialized import SpecializedSession
from benchmarks.speed.networks import Opened

_COLD = "import sys; from analyzer.cli import main; sys.exit(main())"
_ROUNDS = 5


def startup(opened: Opened, threads: int) -> dict[str, float]:
    """Seconds, the best of five.

    "build": canonical form and explanation model; "open": lowering, the session and its first run;
    "command": a cold `onnx-analyzer explain` of one picture; "size": the explanation model's bytes
    over the file's.
    """
    found: dict[str, list[float]] = {"build": [], "open": [], "command": []}
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        model = gr.explanation_model(opened.model, "gradient")
        found["build"].append(time.perf_counter() - begun)
        feeds = {model.graph.input[0].name: opened.noise(1), "target": np.zeros(1, np.int64)}
        session = SpecializedSession(model, "cpu", threads)
        begun = time.perf_counter()
        session.run(feeds)
        found["open"].append(time.perf_counter() - begun)
        found["command"].append(_command(opened.file))
    best = {name: min(seconds) for name, seconds in found.items()}
    return {**best, "size": model.ByteSize() / opened.file.stat().st_size}


def _command(file: Path) -> float:
    with TemporaryDirectory() as scratch:
        picture = Path(scratch) / "noise.png"
        pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        Image.fromarray(pixels).save(picture)
        command = [sys.executable, "-c", _COLD, "explain", str(file), str(picture), "-o", scratch]
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begun
