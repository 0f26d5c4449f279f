"""DFT and STFT. Both are linear."""

import itertools

import numpy as np

from .harness import Case, Fed


def dft(shape, note, *, length=None, axis=None, opset=21, **attrs):
    inputs = [shape, None if length is None else np.array(length)]
    if opset < 20:
        attrs = {**attrs, **({} if axis is None else {"axis": axis})}
    elif axis is not None:
        inputs.append(np.array(axis))
    return Case("DFT", inputs, attrs, "linear", note=f"{note}, opset {opset}", opset=opset)


SIGNAL, PAIRS = ("N", 6, 1), ("N", 6, 2)
TRANSFORMED = [
    *(
        dft(shape, f"{note}, length {length}", length=length, axis=1, opset=opset, **attrs)
        for opset, length in itertools.product((18, 21), (None, 4, 9))
        for note, shape, attrs in [
            ("real", SIGNAL, {}),
            ("complex", PAIRS, {"onesided": 0}),
            ("half a spectrum", SIGNAL, {"onesided": 1}),
            ("inverse", PAIRS, {"inverse": 1}),
            ("inverse of a real spectrum", SIGNAL, {"inverse": 1}),
        ]
    ),
    *(
        dft(PAIRS, f"real inverse, length {length}", length=length, axis=1, inverse=1, onesided=1)
        for length in (None, 10, 11)  # of others runtime and numpy have different views
    ),
    dft(("N", 4, 3, 2), "over the height", axis=-3),
    dft(("N", 4, 3, 1), "over the width, by default", onesided=1),
    dft(("N", 4, 3, 1), "axis 1 by default", opset=18),
    dft(("N", "H", 2), "free length", axis=1),
    dft(("N", "H", 1), "free length, half a spectrum", axis=1, onesided=1),
]


def stft(signal, step, window, length, note, onesided=1):
    """One-sided by default, which ONNX's shape inference has wrong: see test_spectral.py."""
    inputs = [signal, np.array(step), window, length]
    return Case("STFT", inputs, {"onesided": onesided}, "linear", note=note, wrt=(0,))


HANN = np.hanning(6).astype(np.float32)
FRAMED = [
    stft(("N", 20, 1), 3, HANN, np.array(6), "overlapping"),
    stft(("N", 20, 1), 6, HANN, None, "side by side"),
    stft(("N", 20, 1), 7, None, np.array(5), "apart"),
    stft(("N", 20, 1), 2, HANN, np.array(6), "whole spectrum", onesided=0),
    stft(("N", 20, 2), 4, HANN, np.array(6), "complex", onesided=0),
    stft(("N", 20, 1), 3, Fed(HANN), np.array(6), "run-time window"),
    stft(("N", "L", 1), 1, None, np.array(3), "free length"),
]
CASES = [*TRANSFORMED, *FRAMED]
