"""Values that are quantised twice, or handed on as integers: where the backward reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from graph_rewrites.sharp import directional_error
from graph_rewrites.stamps import PREFIX_KEY

from .runtime import run, session
from .samples import graph_of

RNG = np.random.default_rng(5)


def weights(*shape: int) -> np.ndarray:
    return RNG.integers(-127, 128, shape).astype(np.int8)


CONSTANTS = {
    "w": weights(8, 3, 3, 3), "v": weights(5, 8, 3, 3), "sw": np.float32(0.01),
    "zw": np.int8(0), "sx": np.float32(0.03), "zx": np.uint8(128), "so": np.float32(0.03),
    "lo": np.float32(0.0), "hi": np.float32(6.0),
}  # fmt: skip

QUANTISED = """g (float[N, 3, 9, 9] x) => (float[N, 5] y) {{
  qx = QuantizeLinear(x, sx, zx)  dx = DequantizeLinear(qx, sx, zx)
  dw = DequantizeLinear(w, sw, zw)  dv = DequantizeLinear(v, sw, zw)
  c = Conv(dx, dw)  {middle}
  e = Conv(last, dv)  qe = QuantizeLinear(e, so, zx)  de = DequantizeLinear(qe, so, zx)
  a = GlobalAveragePool(de)  y = Flatten(a) }}"""

TWICE = """{relu} q1 = QuantizeLinear({c}, s1, z1)  d1 = DequantizeLinear(q1, s1, z1)
  q2 = QuantizeLinear(d1, s2, z2)  last = DequantizeLinear(q2, s2, z2)"""


def twice(kind: str) -> onnx.ModelProto:
    """A convolution quantised twice: into a folded ReLU, behind a ReLU6, or without any."""
    relu, c = ("r = Clip(c, lo, hi)", "r") if kind == "clip" else ("", "c")
    zero = np.uint8(128 if kind == "linear" else 0)
    middle = TWICE.format(relu=relu, c=c)
    steps = {"s1": np.float32(0.05), "s2": np.float32(0.031), "z1": zero, "z2": np.uint8(9)}
    return graph_of(QUANTISED.format(middle=middle), **CONSTANTS, **steps)


def reads(model: onnx.ModelProto, prefix: str = "grad") -> set[str]:
    """What the backward graph reads."""
    return {
        name
        for node in model.graph.node
        if any(p.key == PREFIX_KEY and p.value.startswith(prefix) for p in node.metadata_props)
        for name in node.input
    }


@pytest.mark.parametrize("kind", ["folded", "clip", "linear"])
def test_two_pairs_are_read_behind_the_second(kind: str) -> None:
    """The runtime makes one pair of them, and other numbers, unless something reads between."""
    model = twice(kind)
    x = RNG.standard_normal((3, 3, 9, 9)).astype(np.float32)
    (expected,) = session(model).run(["y"], {"x": x})
    assert np.abs(session(model, optimised=False).run(["y"], {"x": x})[0] - expected).max() > 0
    for names in (["x"], ["x", "c", "q1", "d1", "q2", "last"]):
        guided = gr.differentiate(model, wrt=names, relu="guided")
        assert not reads(guided) & {"c", "r", "q1", "d1", "q2"}
        kinds = [a.kind for a in gr.coverage(guided).relus]
        assert kinds == ([] if kind == "linear" else [kind])
        ct = RNG.standard_normal((3, 5)).astype(np.float32)
        got = run(guided, {"x": x, "cotangent": ct})
        np.testing.assert_array_equal(got["y"], expected)
        assert np.abs(got["grad/x"]).max() > 0
    for name in ("x", "last"):
        assert directional_error(gr.differentiate(model, wrt=name), {"x": x[:1]}, name) <= 1e-6


@pytest.mark.parametrize("layer", ["c", "last", "de"])
def test_a_layer_between_two_pairs_is_read_behind_the_second(layer: str) -> None:
    model = twice("folded")
    x = RNG.standard_normal((3, 3, 9, 9)).astype(np.float32)
    (expected,) = session(model).run(["y"], {"x": x})
    explained = gr.explanation_model(model, ("grad_cam", "guided_backprop"), layer=layer)
    out = run(explained, {"x": x, "target": np.full(3, -1)})
    np.testing.assert_array_equal(out["y"], expected)
    assert np.isfinite(out["map/grad_cam"]).all()


def handed_on() -> onnx.ModelProto:
    """A sigmoid whose quantised values a pool takes as they are."""
    middle = """qc = QuantizeLinear(c, s1, zx)  dc = DequantizeLinear(qc, s1, zx)
      g = Sigmoid(dc)  q = QuantizeLinear(g, s2, z2)
      p = MaxPool<kernel_shape = [2, 2]>(q)  last = DequantizeLinear(p, s2, z2)"""
    steps = {"s1": np.float32(0.05), "s2": np.float32(1 / 256), "z2": np.uint8(0)}
    return graph_of(QUANTISED.format(middle=middle), **CONSTANTS, **steps)


@pytest.mark.parametrize("targets", [1, 2])
def test_integers_without_a_float_behind_them_are_dequantised(targets: int) -> None:
    """Never the float in front: reading that would take the sigmoid out of its integer kernel."""
    model = handed_on()
    explained = gr.explanation_model(model, "gradient", targets=targets)
    assert "q" in reads(explained, "gradient")
    assert "g" not in reads(explained, "gradient")
    x = RNG.standard_normal((3, 3, 9, 9)).astype(np.float32)
    out = run(explained, {"x": x, "target": np.array([[1, 4]] * 3)[:, -targets:].squeeze()})
    (expected,) = session(model).run(["y"], {"x": x})
    np.testing.assert_array_equal(out["y"], expected)
    one = gr.differentiate(model, wrt="x")
    theirs = run(one, {"x": x, "cotangent": np.eye(5, dtype=np.float32)[[4] * 3]})["grad/x"]
    ours = out["map/gradient"] if targets == 1 else out["map/gradient"][:, 1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    assert directional_error(one, {"x": x[:1]}, "x") <= 1e-6


def test_integer_kernels_are_kept(tmp_path: Path) -> None:
    for model in (twice("folded"), twice("clip"), handed_on()):
        explained = gr.explanation_model(model, ("grad_cam", "guided_backprop"))
        counts = []
        for file in (model, explained):
            session(file, save_to=str(tmp_path / "optimised.onnx"))
            nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
            counts.append(sum(n.op_type.startswith("QLinear") for n in nodes))
        assert counts[0] == counts[1] > 0


def silu(z: int) -> onnx.ModelProto:
    """A SiLU with a pair on every edge, its product's zero point `z`."""
    middle = """qc = QuantizeLinear(c, s1, zx)  dc = DequantizeLinear(qc, s1, zx)
      g = Sigmoid(dc)  q = QuantizeLinear(g, s2, z2)  dq = DequantizeLinear(q, s2, z2)
      m = Mul(dc, dq)  qm = QuantizeLinear(m, s1, zm)  last = DequantizeLinear(qm, s1, zm)"""
    steps = {"s1": np.float32(0.05), "s2": np.float32(1 / 256), "z2": np.uint8(0)}
    return graph_of(QUANTISED.format(middle=middle), **CONSTANTS, **steps, zm=np.uint8(z))


def test_a_silu_in_integers_is_one_smooth_activation() -> None:
    """Its least value is -0.28, so that even a coarse scale gives it a zero point above 0."""
    grads = gr.differentiate(silu(5), wrt="x", relu="guided")
    (found,) = gr.coverage(grads).activations
    assert found.kind == "smooth"
    plain = gr.differentiate(silu(5), wrt="x")
    x = RNG.standard_normal((1, 3, 9, 9)).astype(np.float32)
    assert directional_error(plain, {"x": x}, "x") <= 1e-6
