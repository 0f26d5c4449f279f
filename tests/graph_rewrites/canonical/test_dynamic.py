"""Dynamically quantised files: integer accumulators become float32 that holds integers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

import graph_rewrites as gr
from graph_rewrites.canonical import canonicalize
from graph_rewrites.sharp import directional_error
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of
from tests.graph_rewrites.test_quantized import pictures, pixel_map, small_cnn, spearman

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(3).bit_generator.state


def integers(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("zeros", ["none", "one", "per channel"])
def test_conv_integer_to_the_bit(zeros: str, optimised: bool) -> None:
    text = """g (uint8[N, 4, 7, 6] x) => (int32[N, 6, 4, 6] y, float[N, 6, 4, 6] f) {
        y = ConvInteger <group = 2, strides = [2, 1], pads = [1, 1, 1, 1]> (x, wZEROS)
        f = Cast <to = 1> (y)
    }"""
    kind = np.uint8 if zeros == "one" else np.int8
    constants = {"w": integers(6, 2, 3, 3, dtype=kind), "xz": np.array(77, np.uint8)}
    constants["wz"] = np.array(3, kind)
    names = {"none": "", "one": ", xz, wz", "per channel": ", xz, wz"}[zeros]
    model = plain = graph_of(text.replace("ZEROS", names), opset=13, **constants)
    if zeros == "per channel":  # the standard's; the runtime lacks it: it gets the difference
        constants["w"] //= 2
        constants["wz"] = np.array([-5, 0, 7, 40, -60, 1], np.int8)
        model = graph_of(text.replace("ZEROS", names), opset=13, **constants)
        constants["w"] = constants["w"] - constants["wz"].reshape(6, 1, 1, 1)
        constants["wz"] = np.array(0, kind)
        plain = graph_of(text.replace("ZEROS", names), opset=13, **constants)
    x = integers(3, 4, 7, 6)
    expected = session(plain).run(None, {"x": x})
    canonical = canonicalize(model)
    assert "ConvInteger" not in {node.op_type for node in canonical.graph.node}
    got = run(canonical, {"x": x}, optimised=optimised)
    assert np.ptp(expected[0]) > 10_000
    for name, value in zip(("y", "f"), expected, strict=True):
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("rows", ["one", "per row"])
def test_matmul_integer_to_the_bit(rows: str, optimised: bool) -> None:
    """Zero points of A per row are the standard's; the runtime lacks them, so numpy judges."""
    text = """g (uint8[5, 7] a) => (int32[5, 4] y) {
        y = MatMulInteger (a, b, az, bz)
    }"""
    az = np.array(9, np.uint8) if rows == "one" else integers(5)
    bz = np.array([3, -2, 0, 7], np.int8)
    a, b = integers(5, 7), integers(7, 4, dtype=np.int8)
    model = graph_of(text, opset=13, b=b, az=az, bz=bz)
    left = a.astype(np.int64) - (az.astype(np.int64)[:, None] if az.ndim else int(az))
    expected = left @ (b.astype(np.int64) - bz)
    got = run(canonicalize(model, batch="keep"), {"a": a}, optimised=optimised)["y"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("channels", "told"), [(50, False), (300, True)])
def test_an_accumulator_that_float32_cannot_hold_is_told(
    channels: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"""g (uint8[N, {channels}, 4, 4] x) => (int32[N, 1, 2, 2] y) {{
        y = ConvInteger (x, w)
    }}"""
    weights = np.full((1, channels, 3, 3), 127, np.int8)
    with caplog.at_level(logging.INFO, logger="graph_rewrites"):
        canonicalize(graph_of(text, w=weights))
    assert any("ConvInteger" in record.message for record in caplog.records) is told


@pytest.fixture(scope="module", params=["written", "written int8", "optimised"])
def file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    """What the runtime's dynamic quantiser writes, and what its optimiser makes of that."""
    folder = tmp_path_factory.mktemp("dynamic")
    onnx.save(small_cnn(), folder / "float.onnx")
    kind = QuantType.QInt8 if request.param.endswith("int8") else QuantType.QUInt8
    quantize_dynamic(folder / "float.onnx", folder / "int.onnx", weight_type=kind)
    if request.param == "optimised":
        return _optimised(folder / "int.onnx")
    return onnx.load(folder / "int.onnx")


def _optimised(path: Path) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def test_outputs_agree(file: onnx.ModelProto) -> None:
    x = pictures(4, seed=2)
    (expected,) = session(file).run(["scores"], {"image": x})
    canonical = canonicalize(file)
    assert {node.domain for node in canonical.graph.node} == {""}
    assert not any("Integer" in node.op_type for node in canonical.graph.node)
    for optimised in (False, True):
        got = run(canonical, {"image": x}, optimised=optimised)["scores"]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_canonical_form_is_final(file: onnx.ModelProto) -> None:
    once = canonicalize(file)
    unstamped = onnx.ModelProto.FromString(once.SerializeToString())
    del unstamped.metadata_props[:]
    again = canonicalize(unstamped)
    assert [n.op_type for n in again.graph.node] == [n.op_type for n in once.graph.node]


def test_the_gradient_knows_every_scale(file: onnx.ModelProto) -> None:
    """Each layer multiplies by its picture's scale and divides by it: on the way back too."""
    grads = gr.differentiate(file, wrt=["image"])
    assert directional_error(grads, {"image": pictures(1, seed=7)}, "image") <= 1e-6


def test_guided_maps_agree_with_the_float_twins(file: onnx.ModelProto) -> None:
    x = pictures(4, seed=2)
    maps = [np.concatenate([pixel_map(m, "guided", row[None]) for row in x])
            for m in (file, small_cnn())]  # fmt: skip
    norms = [np.linalg.norm(m) for m in maps]
    assert norms[0] == pytest.approx(norms[1], rel=0.1)
    assert min(spearman(a, b) for a, b in zip(*maps, strict=True)) >= 0.9
    guided = gr.differentiate(file, wrt=["image"], relu="guided")
    assert [a.rule for a in gr.coverage(guided).relus] == ["guided"] * 3


def test_the_explanation_model_runs_and_keeps_the_scores(file: onnx.ModelProto) -> None:
    x = pictures(2, seed=5)
    out = run(gr.explanation_model(file, "grad_cam"), {"image": x, "target": np.full(2, -1)})
    (expected,) = session(file).run(["scores"], {"image": x})
    assert np.ptp(out["map/grad_cam"]) > 0
    np.testing.assert_allclose(out["scores"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "between", ["", "m = Reshape (q, shape)", "m = MaxPool <kernel_shape = [1]> (q)"]
)
def test_a_static_quantiser_in_front_of_an_integer_product(between: str) -> None:
    """Its scale is a constant; the derivative of what it stands for divides by it."""
    text = f"""g (float[N, 1, 3] x) => (float[N, 1, 2] y) {{
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        {between}
        n = MatMulInteger ({"m" if between else "q"}, w, z)
        f = Cast <to = 1> (n)
        g = Mul (f, s)
        e = MatMul (d, v)
        y = Add (g, e)
    }}"""
    w, v = integers(3, 2, dtype=np.int8), RNG.standard_normal((3, 2)).astype(np.float32)
    constants = {"s": np.array(0.02, np.float32), "z": np.array(128, np.uint8)}
    constants["shape"] = np.array([0, 1, 3])
    model = graph_of(text, opset=13, w=w, v=v, **constants)
    x = RNG.uniform(-1, 1, (4, 1, 3)).astype(np.float32)
    ct = RNG.standard_normal((4, 1, 2)).astype(np.float32)
    grads = gr.differentiate(model, wrt=["x"], of="y")
    got = run(grads, {"x": x, "cotangent": ct})
    np.testing.assert_allclose(got["grad/x"], ct @ (w + v).T, rtol=1e-5)
    np.testing.assert_array_equal(got["y"], session(model).run(["y"], {"x": x})[0])


def test_a_folded_relu_in_front_of_an_integer_convolution_is_listed_once() -> None:
    text = """g (float[N, 2, 5, 5] x) => (float[N, 3, 1, 1] y) {
        c = Conv (x, v)
        q = QuantizeLinear (c, s, z)
        m = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (q)
        n = ConvInteger (m, w, z)
        f = Cast <to = 1> (n)
        y = Mul (f, s)
    }"""
    v = RNG.standard_normal((4, 2, 3, 3)).astype(np.float32)
    w, s = integers(3, 4, 2, 2, dtype=np.int8), np.array(0.02, np.float32)
    model = graph_of(text, opset=13, v=v, w=w, s=s, z=np.array(0, np.uint8))
    grads = gr.differentiate(model, wrt=["x"], of="y", relu="guided")
    assert [(a.tensor, a.kind) for a in gr.coverage(grads).relus] == [("q", "folded")]
    plain = gr.differentiate(model, wrt=["x", "c"], of="y")
    x = RNG.standard_normal((1, 2, 5, 5)).astype(np.float32)
    for name in ("x", "c"):
        assert directional_error(plain, {"x": x}, name, of="y") <= 1e-6
