"""Networks that each hold the case of one lowering pattern, and its corners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tests.graph_rewrites.samples import graph_of


@dataclass(frozen=True)
class Case:
    """A network from `x` to `y`.

    Attributes:
        pattern: the pattern that finds its case here.
        body: its nodes in ONNX's notation.
        image: the shape of one image.
        scores: the shape of `y` behind the batch.
        weights: shapes of the weights by name; a `v…` is a variance, above 0.
        flat: whether the picture has areas of one value, where maxima tie; all numbers are then
            eighths, so that nothing rounds and ties are the same in whatever order one adds.
    """

    pattern: str
    body: str
    image: Sequence[int]
    scores: Sequence[int]
    weights: Mapping[str, Sequence[int]]
    flat: bool = False

    def model(self) -> onnx.ModelProto:
        """The network, its batch free."""
        rng = np.random.default_rng(1)
        weights = {name: rng.standard_normal(s) for name, s in self.weights.items()}
        for name, value in weights.items():
            if name.startswith("v"):
                np.square(value, out=value)
        x, y = (",".join(map(str, shape)) for shape in (self.image, self.scores))
        text = f"net (float[N,{x}] x) => (float[N,{y}] y) {{ {self.body} }}"
        return graph_of(text, **{name: self._rounded(w) for name, w in weights.items()})

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        """Pictures and a cotangent."""
        rng = np.random.default_rng(2)
        x = self._rounded(rng.standard_normal((batch, *self.image)))
        if self.flat:
            x[..., x.shape[-1] // 2 :] = 1.0
        ct = rng.standard_normal((batch, *self.scores)).astype(np.float32)
        return {"x": x, "cotangent": ct}

    def _rounded(self, value: np.ndarray) -> np.ndarray:
        return (np.round(value * 8) / 8 if self.flat else value).astype(np.float32)


def _conv(image: Sequence[int], scores: Sequence[int], w: Sequence[int], attributes: str) -> Case:
    return Case("flipped_convolution", f"y = Conv<{attributes}>(x, w)", image, scores, {"w": w})


def _depthwise(size: int, count: int, kernel: int, attributes: str, channels: int = 16) -> Case:
    body = f"y = Conv<group={channels}, {attributes}>(x, w)"
    image, scores = (channels, size, size), (channels, count, count)
    weights = {"w": (channels, 1, kernel, kernel)}
    return Case("spread_depthwise_convolution", body, image, scores, weights)


_NORMAL = {"s": (16,), "b": (16,), "m": (16,), "v": (16,)}
_POOL = "h = Conv<pads=[1,1,1,1]>(x, w) r = Relu(h) y = "
_W = {"w": (16, 16, 3, 3)}

CASES: Mapping[str, Case] = {
    "conv": _conv((16, 9, 9), (32, 9, 9), (32, 16, 3, 3), "pads=[1,1,1,1]"),
    "conv without padding": _conv((16, 9, 9), (8, 7, 7), (8, 16, 3, 3), "pads=[0,0,0,0]"),
    "conv of a pixel": _conv((16, 5, 5), (8, 5, 5), (8, 16, 1, 1), "pads=[0,0,0,0]"),
    "dilated conv": _conv((8, 11, 11), (4, 9, 9), (4, 8, 3, 3), "dilations=[2,2], pads=[1,1,1,1]"),
    "grouped conv": _conv((12, 7, 7), (8, 7, 7), (8, 3, 3, 3), "group=4, pads=[1,1,1,1]"),
    "depthwise conv": _conv((16, 7, 7), (16, 7, 7), (16, 1, 5, 5), "group=16, pads=[2,2,2,2]"),
    "conv of a line": _conv((8, 20), (6, 20), (6, 8, 5), "pads=[2,2]"),
    "conv of a volume": _conv((4, 5, 6, 7), (3, 5, 6, 7), (3, 4, 3, 3, 3), "pads=[1,1,1,1,1,1]"),
    "conv, odd kernel": _conv((3, 9, 8), (5, 8, 8), (5, 3, 2, 3), "pads=[0,1,0,1]"),
    "depthwise 3, stride 2": _depthwise(10, 5, 3, "strides=[2,2], pads=[1,1,1,1]"),
    "depthwise 3, odd size": _depthwise(9, 5, 3, "strides=[2,2], pads=[1,1,1,1]"),
    "depthwise 5, stride 3": _depthwise(15, 5, 5, "strides=[3,3], pads=[2,2,2,2]"),
    "depthwise, 10 channels": _depthwise(8, 4, 3, "strides=[2,2], pads=[1,1,1,1]", 10),
    "TensorFlow's padding": Case(
        "cropped_convolution",
        "h = Conv<strides=[2,2], pads=[0,0,1,1]>(x, w)"
        " y = Conv<group=16, strides=[2,2], pads=[0,1,1,2]>(h, d)",
        (8, 16, 16),
        (16, 4, 5),
        {"w": (16, 8, 3, 3), "d": (16, 1, 3, 3)},
    ),
    "uneven padding": Case(
        "cropped_convolution",
        "y = Conv<pads=[2,0,1,1]>(x, w)",
        (8, 9, 9),
        (16, 10, 8),
        {"w": (16, 8, 3, 3)},
    ),
    "normalisation behind a conv": Case(
        "factor_in_weight",
        "h = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) y = BatchNormalization(h, s, b, m, v)",
        (8, 9, 9),
        (16, 5, 5),
        {"w": (16, 8, 3, 3), **_NORMAL},
    ),
    "normalisation before a ReLU": Case(
        "factor_before_mask",
        "h = BatchNormalization(x, s, b, m, v) r = Relu(h) y = Conv<pads=[1,1,1,1]>(r, w)",
        (16, 7, 7),
        (16, 7, 7),
        {**_W, **_NORMAL},
    ),
    "ReLU under a pool": Case(
        "mask_before_unpooling",
        f"{_POOL} MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r)",
        (16, 12, 12),
        (16, 6, 6),
        _W,
        flat=True,
    ),
    "pool without overlap": Case(
        "unpooling",
        f"{_POOL} MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)",
        (16, 8, 8),
        (16, 4, 4),
        _W,
        flat=True,
    ),
    "pool without overlap, odd size": Case(
        "unpooling",
        f"{_POOL} MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)",
        (16, 9, 9),
        (16, 4, 4),
        _W,
    ),
    "pool that leaves pixels out": Case(
        "unpooling",
        f"{_POOL} MaxPool<kernel_shape=[2,1], strides=[3,2]>(r)",
        (16, 8, 8),
        (16, 3, 4),
        _W,
    ),
    "pool without overlap, beyond the picture": Case(
        "mask_before_unpooling",  # and not `unpooling`
        f"{_POOL} MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(r)",
        (16, 9, 9),
        (16, 5, 5),
        _W,
    ),
    "pool without overlap, over its padding": Case(
        "mask_before_unpooling",
        f"{_POOL} MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,0,0]>(r)",
        (16, 7, 7),
        (16, 4, 4),
        _W,
    ),
    "global average pool": Case(
        "repeated_pixel", f"{_POOL} GlobalAveragePool(r)", (16, 6, 5), (16, 1, 1), _W
    ),
    "mean over the pixels": Case(
        "global_pool",
        "h = Conv<pads=[1,1,1,1]>(x, w) axes = Constant<value_ints=[2,-1]>()"
        " y = ReduceMean<keepdims=1>(h, axes)",
        (16, 6, 6),
        (16, 1, 1),
        _W,
    ),
    "SiLU": Case(
        "silu_slope",
        "h = Conv<pads=[1,1,1,1]>(x, w) s = Sigmoid(h) y = Mul(s, h)",
        (16, 6, 6),
        (16, 6, 6),
        _W,
    ),
    "sigmoid": Case(
        "sigmoid_complement",
        "h = Conv<pads=[1,1,1,1]>(x, w) y = Sigmoid(h)",
        (16, 6, 6),
        (16, 6, 6),
        _W,
    ),
    "ReLU": Case("step_mask", f"{_POOL} Conv<pads=[1,1,1,1]>(r, w)", (16, 7, 7), (16, 7, 7), _W),
    "ReLU6": Case(
        "step_mask",
        "h = Conv<pads=[1,1,1,1]>(x, w) zero = Constant<value_float=0.0>()"
        " six = Constant<value_float=6.0>() y = Clip(h, zero, six)",
        (16, 7, 7),
        (16, 7, 7),
        _W,
    ),
    "a quantised weight": Case(
        "float_weight",
        "scale = Constant<value_floats=[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8]>()"
        " i = Cast<to=3>(w) q = DequantizeLinear<axis=0>(i, scale) y = Conv<pads=[1,1,1,1]>(x, q)",
        (16, 6, 6),
        (8, 6, 6),
        {"w": (8, 16, 3, 3)},
    ),
    "a block with a shortcut": Case(
        "entry",
        "r = Relu(x) a = Conv<strides=[2,2], pads=[1,1,1,1]>(r, w) b = Conv<strides=[2,2]>(r, u)"
        " c = Conv(r, u) d = Relu(c) e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)"
        " f = Add(a, b) y = Add(f, e)",
        (16, 8, 8),
        (16, 4, 4),
        {**_W, "u": (16, 16, 1, 1)},
    ),
}
