"""Fourier transforms inside a network, by the central differences of the whole."""

import numpy as np
import pytest

import graph_rewrites as gr
from graph_rewrites.testing import directional_error
from tests.graph_rewrites.samples import graph_of

SPECTRA = {
    # the attribute is left to its default, which ONNX's shape inference has wrong
    "STFT": "a = STFT(x, step, window)  b = Flatten(a)  y = Mul(b, b)",
    "DFT": "a = DFT<axis = 1, onesided = 1>(x)  b = Flatten(a)  y = Mul(b, b)",
}


@pytest.mark.parametrize("op_type", SPECTRA)
def test_a_power_spectrum(op_type: str) -> None:
    rng = np.random.default_rng(0)
    window, signal = np.hanning(8).astype(np.float32), rng.standard_normal((2, 40, 1))
    model = graph_of(
        f"g (float[2, 40, 1] x) => (float[] y) {{ {SPECTRA[op_type]} }}",
        18,
        step=np.array(4),
        window=window,
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    grads = gr.differentiate(model, "x", of="y")
    feeds = {"x": signal.astype(np.float32)}
    assert directional_error(grads, feeds, "x", of="y") < 1e-6
