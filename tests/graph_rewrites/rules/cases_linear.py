"""Convolutions and matrix products, linear in each input."""

import itertools

import numpy as np

from .harness import Case

RNG = np.random.default_rng(11)


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def conv(note: str, x: tuple, w: tuple, bias: bool = False, op: str = "Conv", **attrs) -> Case:
    inputs = [x, weight(*w)]
    if bias:
        inputs.append(weight(w[0] if op == "Conv" else w[1] * attrs.get("group", 1)))
    opset = attrs.pop("opset", 21)
    return Case(op, inputs, attrs, "linear", note=note, opset=opset)


def transpose(note: str, x: tuple, w: tuple, **attrs) -> Case:
    return conv(note, x, w, op="ConvTranspose", **attrs)


PLANE = ("N", 4, 9, 8)
FREE = ("N", 4, "H", "W")

CONV = [
    conv("bare", PLANE, (3, 4, 3, 3)),
    conv("kernel_shape and bias", PLANE, (3, 4, 3, 3), bias=True, kernel_shape=[3, 3], opset=18),
    conv("same pads", PLANE, (3, 4, 3, 3), pads=[1, 1, 1, 1]),
    conv("1x1", PLANE, (5, 4, 1, 1)),
    conv("1x1 stride 2", PLANE, (5, 4, 1, 1), strides=[2, 2]),
    conv("kernel of two axes", PLANE, (3, 4, 1, 5), pads=[0, 2, 0, 2]),
    conv("even kernel", PLANE, (3, 4, 4, 2), strides=[3, 2]),
    conv("stride beyond kernel", PLANE, (3, 4, 2, 2), strides=[3, 4]),
    conv("pads beyond kernel", PLANE, (3, 4, 2, 2), pads=[3, 2, 3, 4], strides=[2, 1]),
    conv("dilated", PLANE, (3, 4, 3, 2), dilations=[2, 3]),
    conv(
        "dilated strided padded",
        PLANE,
        (3, 4, 3, 3),
        dilations=[2, 3],
        strides=[2, 3],
        pads=[2, 3, 2, 3],
    ),
    conv("grouped", PLANE, (6, 2, 3, 3), group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv("depthwise", PLANE, (4, 1, 3, 3), group=4, pads=[1, 1, 1, 1]),
    conv(
        "depthwise with multiplier", PLANE, (8, 1, 5, 5), group=4, strides=[2, 2], pads=[2, 2, 2, 2]
    ),
    conv("pads behind only", PLANE, (3, 4, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2]),
    conv("pads in front only", PLANE, (3, 4, 3, 3), pads=[1, 1, 0, 0], strides=[2, 2]),
    conv(
        "pads differ by axis",
        PLANE,
        (3, 4, 3, 3),
        pads=[2, 0, 1, 2],
        strides=[2, 3],
        dilations=[1, 2],
    ),
    conv("1-D", ("N", 3, 11), (4, 3, 3), strides=[2], pads=[1, 1]),
    conv("1-D asymmetric", ("N", 3, 11), (4, 3, 4), strides=[3], pads=[0, 2]),
    conv("1-D free size", ("N", 4, "L"), (2, 2, 3), group=2, strides=[2], pads=[1, 0]),
    conv("3-D", ("N", 2, 5, 6, 4), (3, 2, 3, 3, 3), strides=[2, 1, 2], pads=[1, 1, 1, 1, 1, 1]),
    conv(
        "3-D asymmetric",
        ("N", 2, 5, 6, 4),
        (4, 1, 2, 3, 2),
        group=2,
        strides=[1, 2, 2],
        pads=[0, 1, 1, 1, 0, 0],
    ),
    conv("free size stride 1", FREE, (3, 4, 3, 3), pads=[1, 1, 1, 1]),
    conv("free size stride 1 asymmetric", FREE, (3, 4, 3, 3), pads=[1, 0, 0, 2]),
    conv("free size one axis", ("N", 4, "H", 8), (3, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    conv(
        "free size grouped dilated",
        FREE,
        (4, 2, 2, 3),
        group=2,
        strides=[2, 3],
        dilations=[3, 1],
        pads=[1, 1, 2, 0],
    ),
    Case(
        "Conv",
        [(2, 3, 6, 6), weight(4, 3, 3, 3)],
        {"strides": [2, 2]},
        "linear",
        note="fixed batch",
    ),
    Case("Conv", [PLANE, (3, 4, 3, 3)], {}, "linear", note="weight fed at run time", wrt=(0,)),
]
# Every remainder of (size + pads - extent) / stride against every order of the two pads.
CONV += [
    conv(
        f"size {size} stride {stride} pads {begin} {end}",
        ("N", 2, height, width),
        (2, 2, 3, 3),
        strides=[stride, stride],
        pads=[begin, begin, end, end],
    )
    for size, stride, begin, end in itertools.product((6, 7, 8), (2, 3), (0, 1, 2), (0, 1, 2))
    for height, width in [(size, size + 1)]
]
CONV += [
    conv(
        f"free size stride {stride} pads {begin} {end}",
        ("N", 2, "H", "W"),
        (2, 2, 3, 3),
        strides=[stride, stride],
        pads=[begin, begin, end, end],
    )
    for stride, begin, end in itertools.product((2, 3), (0, 1, 2), (0, 1, 2))
]

CONV_TRANSPOSE = [
    transpose("bare", PLANE, (4, 3, 3, 3)),
    transpose("bias", PLANE, (4, 3, 3, 3), bias=True, kernel_shape=[3, 3], opset=18),
    transpose("strided padded", PLANE, (4, 3, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]),
    transpose(
        "output padding",
        PLANE,
        (4, 3, 3, 3),
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    transpose(
        "asymmetric", PLANE, (4, 3, 3, 3), strides=[2, 3], pads=[0, 1, 2, 0], output_padding=[0, 2]
    ),
    transpose("dilated", PLANE, (4, 3, 2, 3), strides=[2, 1], dilations=[3, 2]),
    transpose("grouped", PLANE, (4, 3, 3, 3), group=2, strides=[2, 2]),
    transpose("depthwise", PLANE, (4, 1, 2, 2), group=4, strides=[2, 2]),
    transpose("1-D", ("N", 3, 5), (3, 2, 4), strides=[2], pads=[1, 1]),
    transpose(
        "3-D", ("N", 2, 3, 4, 3), (2, 3, 2, 3, 2), strides=[2, 1, 2], pads=[0, 1, 0, 0, 1, 1]
    ),
    transpose(
        "free size", FREE, (4, 3, 3, 3), strides=[2, 2], pads=[1, 0, 1, 1], output_padding=[1, 0]
    ),
]


def gemm(note: str, a: tuple, b: tuple, c: tuple | None = None, **attrs) -> Case:
    return Case("Gemm", [a, b] if c is None else [a, b, c], attrs, "linear", note=note)


GEMM = [
    gemm("no C", ("N", 3), (3, 4)),
    gemm("C omitted", ("N", 3), (3, 4), alpha=0.5),
    gemm("transA", (3, "N"), (3, 4), transA=1, alpha=2.0),
    gemm("transB", ("N", 3), (4, 3), (4,), transB=1),
    gemm("transA and transB", (3, "N"), (4, 3), ("N", 4), transA=1, transB=1, alpha=0.5, beta=-2.0),
    gemm("C of one row", ("N", 3), (3, 4), (1, 4), beta=0.5),
    gemm("C of one column", ("N", 3), (3, 4), ("N", 1)),
    gemm("C scalar", ("N", 3), (3, 4), (), beta=3.0),
    gemm("C of one element", ("N", 3), (3, 4), (1,)),
    gemm("C of a free leading size", ("N", 3), (3, 4), ("M", 4)),
    gemm("beta 0", ("N", 3), (3, 4), (4,), beta=0.0),
    Case(
        "Gemm", [("N", 3), weight(4, 3), weight(4)], {"transB": 1}, "linear", note="constant weight"
    ),
    Case("Gemm", [("N", 3), weight(3, 4), None], {}, "linear", note="C an empty name", opset=18),
]


def matmul(note: str, a: tuple, b: tuple) -> Case:
    return Case("MatMul", [a, b], {}, "linear", note=note)


MATMUL = [
    matmul("matrices", ("N", 3), (3, 4)),
    matmul("stacks", ("N", 2, 5, 3), ("N", 2, 3, 4)),
    matmul("stack times matrix", ("N", 5, 6, 3), (3, 4)),
    matmul("matrix times stack", (5, 3), ("N", 2, 3, 4)),
    matmul("broadcast both ways", ("N", 1, 5, 3), (1, 2, 3, 4)),
    matmul("broadcast free against free", ("N", 5, 3), ("M", 3, 4)),
    matmul("free inner size", ("N", 5, "L"), ("N", "L", 4)),
    matmul("vector times matrix", (3,), (3, 4)),
    matmul("matrix times vector", ("N", 3), (3,)),
    matmul("vector times stack", (3,), ("N", 2, 3, 4)),
    matmul("stack times vector", ("N", 2, 5, 3), (3,)),
    matmul("vectors", (3,), (3,)),
    matmul("free vectors", ("L",), ("L",)),
    Case("MatMul", [("N", 5, 3), weight(3, 4)], {}, "linear", note="constant weight", opset=18),
    Case("MatMul", [weight(2, 5, 3), ("N", 1, 3, 4)], {}, "linear", note="constant left"),
]

CASES = CONV + CONV_TRANSPOSE + GEMM + MATMUL
