"""Who runs, for each task: a function without arguments for each contender."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

import graph_rewrites as gr
from analyzer.specialized import SpecializedSession
from benchmarks.speed.networks import Opened
from benchmarks.speed.runs import Feeds, runtime_run
from benchmarks.speed.table import (
    APART,
    FORWARD,
    LOWERED,
    LOWERED_HALF,
    LOWERED_TF32,
    ONE_RUN,
    PORTABLE,
    TRAINING_BUILD,
)
from benchmarks.speed.timing import Run
from benchmarks.speed.training_build import TrainingBuild

TARGETS = 5
RULES = ("gradient", "guided_backprop", "deconvnet")
TASKS: dict[str, tuple[str, ...]] = {
    "gradient": ("gradient",),
    "guided": ("guided_backprop",),
    "three rules": RULES,
    "Grad-CAM": ("grad_cam",),
    "guided Grad-CAM": ("guided_grad_cam",),
    "five classes": ("gradient",),
}
"""The methods of each task."""


class Task:
    """One task on one network, for a batch of noise.

    Args:
        opened: the network.
        name: a name in `TASKS`.
        batch: images in a run.
        threads: of every contender.
        device: "cpu" or "cuda", of every contender.
        training_python: the interpreter of an environment with the runtime's training build.
    """

    def __init__(
        self,
        opened: Opened,
        name: str,
        batch: int,
        threads: int,
        device: str = "cpu",
        training_python: Path | None = None,
    ) -> None:
        self._opened, self._name, self._threads = opened, name, threads
        self._device = device
        self._training_python = training_python
        self._images = opened.noise(batch)
        several = name == "five classes"
        self._targets = np.arange(TARGETS if several else 1)

    def contenders(self) -> tuple[dict[str, Run], dict[str, str]]:
        """All that can run here, and why others cannot."""
        found, absent = dict(self._ours()), {}
        for name, make in self._peers():
            try:
                run = make()
                run()
            except Exception as error:  # whatever a peer says about a network is a finding
                absent[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            else:
                found[name] = run
        return found, absent

    # -- ours ------------------------------------------------------------------------------------

    def _ours(self) -> Iterator[tuple[str, Run]]:
        canonical = gr.canonicalize(self._opened.model)
        tensor = canonical.graph.input[0].name
        images = {tensor: self._images}
        yield FORWARD, self._run(canonical, images, "portable")
        methods, count = TASKS[self._name], len(self._targets)
        target = np.broadcast_to(self._targets, (len(self._images), count))
        feeds = {**images, "target": target if count > 1 else target[:, 0]}
        built = gr.explanation_model(canonical, methods, targets=count)
        yield PORTABLE, self._run(built, feeds, None)
        yield LOWERED, self._by_the_analyzer(built, feeds)
        if self._name == "gradient" and self._device == "cpu" and len(self._images) > 1:
            yield ONE_RUN, self._run(built, feeds, "cpu")
        if self._device == "cuda":
            yield LOWERED_TF32, self._run(built, feeds, "cuda", tf32=True)
            yield LOWERED_HALF, self._run(built, feeds, "cuda", tf32=True, float16=True)
        if count > 1 or len(methods) > 1:
            yield APART, self._apart(canonical, methods, images)

    def _apart(
        self, canonical: onnx.ModelProto, methods: Sequence[str], images: dict[str, np.ndarray]
    ) -> Run:
        runs = []
        for method in methods:
            feeds = {**images, "target": np.zeros(len(self._images), np.int64)}
            built = gr.explanation_model(canonical, method)
            runs.append(self._by_the_analyzer(built, feeds))
        return lambda: [run() for run in runs for _ in self._targets]

    def _by_the_analyzer(self, model: onnx.ModelProto, feeds: Feeds) -> Run:
        """In as many runs as the analyzer makes of it, and as many at once."""
        if self._device == "cuda":
            return self._run(model, feeds, "cuda")
        session = SpecializedSession(model, "cpu", self._threads)
        count, *picture = self._images.shape
        step = session.run_size(picture, None)
        batches = [{n: v[at : at + step] for n, v in feeds.items()} for at in range(0, count, step)]
        return lambda: session.run_each(batches)

    def _run(
        self,
        model: onnx.ModelProto,
        feeds: Feeds,
        provider: str | None,
        *,
        tf32: bool = False,
        float16: bool = False,
    ) -> Run:
        """The model in one run, lowered for `provider` where one is named."""
        if provider is not None:
            shapes = {name: value.shape for name, value in feeds.items()}
            model = gr.lower(model, provider, shapes, float16=float16)
        return runtime_run(model, feeds, self._device, self._threads, tf32=tf32)

    # -- the peers -------------------------------------------------------------------------------

    def _peers(self) -> Iterator[tuple[str, Callable[[], Run]]]:
        opened = self._opened
        if opened.module is not None:
            given = opened, self._name, self._images, self._targets, self._threads
            if opened.network.zoo != "keras":
                from benchmarks.speed.torch_peers import torch_peers

                yield from torch_peers(*given, self._device)
            elif self._device == "cpu":
                from benchmarks.speed.keras_peers import keras_peers

                yield from keras_peers(*given)
        python = self._training_python
        if python is not None and self._name == "gradient" and self._device == "cpu":
            batch, threads = len(self._images), self._threads
            yield TRAINING_BUILD, lambda: TrainingBuild(python, opened.file, batch, threads)
