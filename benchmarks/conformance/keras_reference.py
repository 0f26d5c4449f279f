"""A Keras application as reference, on TensorFlow."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Else tf2onnx copies the graph before every pass: more than 24 GiB for VGG-16.
os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import applications
from tf2onnx.graph import Graph, Node
from tf2onnx.handler import tf_op

from benchmarks.conformance.reference import LARGE, SAME, Place
from tests.oracles.onnx_gradients import INPUT
from tests.oracles.passes import (
    BATCH,
    NOTHING,
    Array,
    Gradients,
    Kink,
    clip_state,
    picture_by_picture,
    relu_state,
)

_OPSET = 18
_USUAL = 224  # pixels, where an application leaves its size open
# Pixels of those whose pass over the native picture, twice as wide, fits into no 24 GiB in float64.
_FITTING = {"EfficientNetB6": 264, "EfficientNetB7": 300}
_NOISE = 4  # pictures of noise from which the running statistics are taken
_HARD = ("MobileNetV3Large", "MobileNetV3Small")  # their every ReLU6 is part of a hard sigmoid


class KerasReference:
    """An application with seeded weights; see `Reference`.

    The exported network ends in its softmax, as users' do; the reference ends in front of it.
    """

    spatial_axes = (1, 2)
    kinks = frozenset({"relu", "clip", "max"})
    of: str | None = None  # the scores have to be found

    def __init__(self, member: str) -> None:
        name = member.partition("/")[2]
        # What dropout leaves moves the running statistics: an export that is kept must fit them.
        keras.utils.set_random_seed(0)
        self._make = functools.partial(getattr(applications, name), weights=None)
        self._exported = self._make()
        if name in _FITTING or None in self._exported.input_shape[1:]:
            size = _FITTING.get(name, _USUAL)
            self._make = functools.partial(self._make, input_shape=(size, size, 3))
            self._exported = self._make()
        self._hard = name in _HARD
        self.shape = tuple(self._exported.input_shape[1:])
        _draw(self._exported, self.shape)
        self.scores = (BATCH, self._exported.output_shape[-1])

    @functools.cached_property
    def module(self) -> keras.Model:
        """In float32; made when asked for, since the converter wants the memory."""
        return _twin(self._make, self._exported, "float32")

    @functools.cached_property
    def _double(self) -> keras.Model:
        return _twin(self._make, self._exported, "float64")

    def export(self, path: Path) -> None:
        """Through tf2onnx, batch free, NHWC picture, softmax last."""
        if path.exists():
            return
        spec = tf.TensorSpec((None, *self.shape), tf.float32, name=INPUT)
        with _inlined(), _weights_written_once():
            tf2onnx.convert.from_keras(
                self._exported, input_signature=(spec,), opset=_OPSET, output_path=str(path)
            )

    def locate(self, images: Array, values: Array) -> Place:
        """The number of the operation, in Keras's order, whose output the layer is."""
        best: Place = None
        nearest = SAME
        for place, output in enumerate(_outputs(self.module)):
            if _fits(output.shape, values.shape):
                found = _as_graph(keras.Model(self.module.inputs, output)([images]), values.shape)
                apart = float(np.linalg.norm(found - values) / np.linalg.norm(values))
                if apart < nearest:
                    best, nearest = place, apart
        return best

    def gradients(
        self,
        images: Array,
        ct: Array,
        place: Place,
        *,
        double: bool,
        rule: str = "gradient",
        replay: Sequence[Kink] | None = None,
    ) -> Gradients:
        """GradientTape's; kinks are laid out (N, C, H, W). Large pictures go one by one."""
        net = self._double if double else self.module

        def one_pass(
            images: Array, ct: Array, replay: Sequence[Kink] | None, first: int = 0
        ) -> Gradients:
            return self._pass(net, images, ct, place, _Kinks(rule, replay, first, hard=self._hard))

        if max(self.shape) < LARGE:
            return one_pass(images, ct, replay)
        return picture_by_picture(one_pass, images, ct, replay)

    def _pass(
        self, net: keras.Model, images: Array, ct: Array, place: Place, kinks: _Kinks
    ) -> Gradients:
        x = tf.constant(images, net.compute_dtype)
        layer = [] if place is None else [_outputs(net)[place]]
        with _inlined(), _depthwise(), kinks.watching(), tf.GradientTape() as tape:
            tape.watch(x)
            results = keras.Model(net.inputs, [*layer, net.outputs[0]])([x])
            *values, scores = tf.nest.flatten(results)  # a list of one comes back bare
            total = tf.reduce_sum(scores * tf.constant(ct, scores.dtype))
        dx, *dlayer = tape.gradient(total, [x, *values])
        at_layer, activation = (
            (NOTHING, NOTHING)
            if not dlayer
            else (_channels_first(v) for v in (dlayer[0], values[0]))
        )
        image = np.asarray(dx, np.float64)
        return Gradients(image, at_layer, activation, tuple(kinks.seen))


@contextmanager
def _inlined() -> Iterator[None]:
    """Within this context functions are traced into their caller.

    Keras compiles grouped convolutions by XLA, and tf2onnx leaves a compiled function as the
    call `StatefulPartitionedCall`, which is no ONNX operator.
    """
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@contextmanager
def _weights_written_once() -> Iterator[None]:
    """Within this context tf2onnx leaves the messages of its constants as they are.

    It would write them anew after each of some twenty passes, and protobuf keeps what was written
    before: more than 24 GiB for 120 million weights. Nothing reads them.
    """
    update = Node.update_proto

    def update_operator(node: Node, *args: object, **others: object) -> None:
        if not node.is_const():
            update(node, *args, **others)

    Node.update_proto = update_operator
    try:
        yield
    finally:
        Node.update_proto = update


@contextmanager
def _depthwise() -> Iterator[None]:
    """Within this context a grouped convolution of single channels runs as a depthwise one.

    TensorFlow differentiates grouped ones by XLA alone, which takes minutes for each.
    """
    convolution = tf.nn.convolution

    def quick(
        x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int], padding: str, **others: object
    ) -> tf.Tensor:
        alone = kernel.shape[-2] == 1 and kernel.shape[-1] == x.shape[-1] > 1
        if not alone or tuple(strides) != (1, 1):
            return convolution(x, kernel, strides, padding, **others)
        weight = tf.transpose(kernel, (0, 1, 3, 2))
        return tf.nn.depthwise_conv2d(x, weight, (1, 1, 1, 1), padding, **others)

    tf.nn.convolution = quick
    try:
        yield
    finally:
        tf.nn.convolution = convolution


@tf_op("Erfc")
class _Erfc:
    """erfc(x) = 1 - erf(x): half of an exact GELU, for which tf2onnx has no handler."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **_: object) -> None:
        one = graph.make_const(f"{node.name}_one", np.ones((), np.float32))
        erf = graph.make_node("Erf", node.input)
        node.type = "Sub"
        graph.replace_inputs(node, [one.output[0], erf.output[0]])


def _twin(make: Callable[..., keras.Model], source: keras.Model, floats: str) -> keras.Model:
    """The network of `source` without its softmax, in another precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(floats)
    try:
        net = make(classifier_activation=None)
    finally:
        keras.config.set_dtype_policy(before)
    net.set_weights(source.get_weights())
    return net


def _draw(net: keras.Model, shape: tuple[int, ...]) -> None:
    """Seeded weights under which nothing is an identity; see `tests.oracles.weights`."""
    rng = np.random.default_rng(0)
    for weight in net.weights:
        value = weight.numpy()
        name = weight.path.rpartition("/")[2]
        if value.size > 1 and value.min() == value.max() and "moving" not in name:
            start = float(value.flat[0])
            if name in ("bias", "beta"):
                drawn = start + 0.1 * rng.standard_normal(value.shape)
            elif abs(start) <= 1e-3:
                drawn = rng.uniform(0.2, 0.8, value.shape)
            else:
                drawn = start * rng.uniform(0.7, 1.3, value.shape)
            weight.assign(drawn)
        elif value.ndim > 1:
            fan_in = value.size / value.shape[-1]
            weight.assign(rng.standard_normal(value.shape) * (1.5 / fan_in) ** 0.5)
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # one pass leaves this batch's statistics
    net(rng.standard_normal((_NOISE, *shape)).astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _outputs(net: keras.Model) -> list[keras.KerasTensor]:
    """What every operation of the network computes, in order."""
    return [op.output for op in net.operations if isinstance(op.output, keras.KerasTensor)]


class _Kinks:
    """Every ReLU and max-pool that TensorFlow runs, seen and, where asked for, replaced."""

    def __init__(
        self, rule: str, replay: Sequence[Kink] | None, first: int = 0, *, hard: bool
    ) -> None:
        self.seen: list[Kink] = []
        self._rule, self._first, self._hard = rule, first, hard
        self._rectified: list[tuple[tf.Tensor, tf.Tensor]] = []
        self._replay = None if replay is None else iter(replay)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within this context Keras's layers call the functions below."""
        relu, relu6, max_pool = tf.nn.relu, tf.nn.relu6, tf.nn.max_pool
        tf.nn.max_pool = self._max_pool
        tf.nn.relu = lambda x, name=None: self._rectify(x, "relu", np.inf)
        tf.nn.relu6 = lambda x, name=None: self._rectify(x, "clip", 6.0)
        try:
            yield
        finally:
            tf.nn.relu, tf.nn.relu6, tf.nn.max_pool = relu, relu6, max_pool

    def _max_pool(
        self, x: tf.Tensor, size: Sequence[int], strides: Sequence[int], padding: str, layout: str
    ) -> tf.Tensor:
        """TensorFlow counts maxima through (N, H, W, C), ONNX through (N, C, H, W)."""
        (n, h, w, c), padding = x.shape, padding.upper()
        assert layout == "NHWC", layout
        places, before = np.arange(n * h * w * c), self._first * h * w * c
        if self._replay is None:
            _, taken = tf.nn.max_pool_with_argmax(
                tf.stop_gradient(x), size, strides, padding, include_batch_in_index=True
            )
            states = np.moveaxis(places.reshape(n, c, h, w), 1, -1).reshape(-1)[taken.numpy()]
            state = np.moveaxis(states, -1, 1)
        else:
            state = next(self._replay).state - before
        self.seen.append(Kink("max", state + before))
        sources = np.moveaxis(places.reshape(n, h, w, c), -1, 1).reshape(-1)[state]
        return tf.gather(tf.reshape(x, [-1]), np.moveaxis(sources, 1, -1))

    def _rectify(self, x: tf.Tensor, kind: str, top: float) -> tf.Tensor:
        """Several ReLUs of one tensor are one: the exporter merges them, as NASNet's cells show."""
        for source, result in self._rectified:
            if source is x:
                return result
        self._rectified.append((x, self._rectify_anew(x, kind, top)))
        return self._rectified[-1][1]

    def _rectify_anew(self, x: tf.Tensor, kind: str, top: float) -> tf.Tensor:
        shape = tuple(x.shape)
        if self._replay is None:
            values = _channels_first(x)
            state = relu_state(values) if kind == "relu" else clip_state(values, top)
        else:
            state = next(self._replay).state
        self.seen.append(Kink(kind, state))
        on = _channels_last(state, shape)
        passed = tf.constant(on == 1)
        rule = "gradient" if self._hard and kind == "clip" else self._rule
        return _ruled(x, passed, tf.constant(on == 2), top, rule, self._replay is not None)


def _ruled(
    x: tf.Tensor, passed: tf.Tensor, above: tf.Tensor, top: float, rule: str, held: bool
) -> tf.Tensor:
    """A ReLU on the linear pieces given, with the backward of `rule`."""

    @tf.custom_gradient
    def rectified(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def backward(ct: tf.Tensor) -> tf.Tensor:
            if rule != "gradient":
                ct = tf.maximum(ct, tf.zeros_like(ct))
            return ct if rule == "deconvnet" else tf.where(passed, ct, tf.zeros_like(ct))

        if not held:
            return tf.clip_by_value(x, tf.cast(0, x.dtype), tf.cast(top, x.dtype)), backward
        ceiling = tf.where(
            above, tf.cast(top if np.isfinite(top) else 0, x.dtype), tf.cast(0, x.dtype)
        )
        return tf.where(passed, x, ceiling), backward

    return rectified(x)


def _fits(shape: Sequence[int | None], values: Sequence[int]) -> bool:
    """Whether a Keras tensor can be `values`, whose channels come first where it is a map."""
    own = [values[0], *(dim for dim in shape[1:] if dim is not None)]
    return len(own) == len(values) and own in (list(values), _moved(values))


def _moved(values: Sequence[int]) -> list[int]:
    return [values[0], *values[2:], values[1]] if len(values) > 2 else list(values)


def _as_graph(value: tf.Tensor, shape: Sequence[int]) -> Array:
    """A result laid out as the graph's: as it is where the shape is the same."""
    array = np.asarray(value)
    return array if array.shape == tuple(shape) else np.moveaxis(array, -1, 1)


def _channels_first(value: tf.Tensor) -> Array:
    array = np.asarray(value, np.float64)
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def _channels_last(state: Array, shape: tuple[int, ...]) -> Array:
    moved = np.moveaxis(state, 1, -1) if state.ndim == 4 else state
    assert moved.shape == shape
    return moved
