"""Keras's own gradients, on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from benchmarks.speed.networks import Opened
from benchmarks.speed.timing import Run


def keras_peers(
    opened: Opened, task: str, images: np.ndarray, targets: np.ndarray, threads: int
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """A GradientTape, as Keras's guide has it, and the same compiled by `tf.function`.

    TensorFlow was told its threads when it started, by the environment.
    """
    assert tf.config.threading.get_intra_op_parallelism_threads() in (0, threads)
    if task not in ("gradient", "five classes"):
        return
    net, x = opened.module, tf.constant(images)

    def gradient(target: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_sum(tf.gather(net(x, training=False), target, axis=1))
        return tape.gradient(score, x)

    compiled, wanted = tf.function(gradient), [tf.constant(int(t)) for t in targets]
    yield "Keras eager", lambda: lambda: [gradient(t).numpy() for t in wanted]
    yield "tf.function", lambda: lambda: [compiled(t).numpy() for t in wanted]
