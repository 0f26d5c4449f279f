"""Operator-quantised files: each node becomes dequantise - operator - quantise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

import graph_rewrites as gr
from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.sharp import directional_error
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.test_quantized import (
    Calibration,
    pictures,
    pixel_map,
    small_cnn,
    spearman,
)

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(9)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(9).bit_generator.state


def scale(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def integers(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def zero(value: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.array(value, dtype)


def one_node(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    attributes: dict[str, Any] | None = None,
    domain: str = MICROSOFT,
    opset: int = 13,
    fed: Sequence[int] = (0,),
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one node; the inputs `fed` are graph inputs, the others are constants."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    node = helper.make_node(op_type, names, ["y"], "quantised", domain=domain, **(attributes or {}))
    feeds = {names[i]: value for i in fed if (value := inputs[i]) is not None}
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in zip(names, inputs, strict=True)
        if value is not None and name not in feeds
    ]
    declared = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), ["N", *value.shape[1:]]
        )
        for name, value in feeds.items()
    ]
    graph = helper.make_graph(
        [node], "g", declared, [onnx.ValueInfoProto(name="y")], initializer=constants
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), feeds


def assert_within_one_step(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The rewritten node on the node's own inputs, unoptimised and optimised."""
    (expected,) = session(model).run(["y"], feeds)
    (value,) = model.graph.output
    elem_type = helper.np_dtype_to_tensor_dtype(expected.dtype)
    value.CopyFrom(helper.make_tensor_value_info("y", elem_type, ["N", *expected.shape[1:]]))
    canonical = canonicalize(model, batch="keep")
    assert {node.domain for node in canonical.graph.node} == {""}
    for optimised in (False, True):
        got = run(canonical, feeds, optimised=optimised)["y"]
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        if expected.dtype == np.float32:
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
            continue
        steps = np.abs(got.astype(int) - expected.astype(int))
        assert steps.max() <= 1
        assert (steps > 0).mean() <= 1e-4 or steps.sum() <= 1
    spread = np.ptp(expected.astype(float))
    assert spread > 50 or expected.dtype == np.float32, f"the outputs hardly differ: {spread}"
    return canonical


KINDS = pytest.mark.parametrize("kind", [np.uint8, np.int8], ids=["uint8", "int8"])
CHANNELS = pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])


@KINDS
@CHANNELS
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_conv(kind: Any, per_channel: bool, bias: bool, last: bool) -> None:
    scales = RNG.uniform(0.01, 0.03, 6).astype(np.float32) if per_channel else scale(0.0193)
    offset = np.zeros(6, np.int8) if per_channel else zero(0, np.int8)
    x = integers(3, 9, 8, 4, dtype=kind) if last else integers(3, 4, 9, 8, dtype=kind)
    w = integers(6, 2, 3, 3, dtype=np.int8)
    b = RNG.integers(-30000, 30000, 6).astype(np.int32) if bias else None
    attributes = {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 1]}
    if last:
        attributes["channels_last"] = 1
    middle = 128 if kind is np.uint8 else 3
    inputs = [
        x,
        scale(0.0513),
        zero(middle, kind),
        w,
        scales,
        offset,
        scale(0.917),
        zero(middle, kind),
    ]
    domain = MICROSOFT if last else ""
    model, feeds = one_node("QLinearConv", [*inputs, b], attributes, domain)
    canonical = assert_within_one_step(model, feeds)
    assert canonical_facts(canonical)["rewritten"] == ["QLinearConv"]


def test_conv_with_automatic_padding_and_asymmetric_weights() -> None:
    inputs = [
        integers(2, 3, 7, 7), scale(0.0513), zero(10),
        integers(4, 3, 3, 3), scale(0.0193), zero(120),
        scale(0.517), zero(100),
    ]  # fmt: skip
    attributes = {"auto_pad": "SAME_LOWER", "strides": [2, 2]}
    assert_within_one_step(*one_node("QLinearConv", inputs, attributes, ""))


@KINDS
@CHANNELS
def test_matmul(kind: Any, per_channel: bool) -> None:
    scales = RNG.uniform(0.01, 0.03, 5).astype(np.float32) if per_channel else scale(0.0193)
    offset = np.zeros(5, np.int8) if per_channel else zero(0, np.int8)
    inputs = [
        integers(40, 7, dtype=kind), scale(0.0513), zero(3, kind),
        integers(7, 5, dtype=np.int8), scales, offset,
        scale(0.217), zero(60, kind),
    ]  # fmt: skip
    assert_within_one_step(*one_node("QLinearMatMul", inputs, domain=""))


def test_one_scale_per_row_is_refused_by_name() -> None:
    inputs = [
        integers(2, 7), np.array([0.05, 0.1], np.float32), np.array([3, 3], np.uint8),
        integers(7, 5), scale(0.1), zero(3), scale(0.2), zero(60),
    ]  # fmt: skip
    model, _ = one_node("QLinearMatMul", inputs, domain="")
    with pytest.raises(UnsupportedOperatorError, match=r"QLinearMatMul .*'x1' of shape \(2,\)"):
        canonicalize(model)


@KINDS
@CHANNELS
@pytest.mark.parametrize("real", [False, True], ids=["integers", "real"])
@pytest.mark.parametrize("trans", [0, 1])
def test_gemm(kind: Any, per_channel: bool, real: bool, trans: int) -> None:
    scales = RNG.uniform(0.01, 0.03, 5).astype(np.float32) if per_channel else scale(0.0193)
    offset = np.zeros(5, np.int8) if per_channel else zero(0, np.int8)
    b = integers(7, 5, dtype=np.int8)
    inputs = [
        integers(40, 7, dtype=kind), scale(0.0513), zero(3, kind),
        np.ascontiguousarray(b.T) if trans else b, scales, offset,
        RNG.integers(-3000, 3000, 5).astype(np.int32),
        *([] if real else [scale(0.217), zero(60, kind)]),
    ]  # fmt: skip
    assert_within_one_step(*one_node("QGemm", inputs, {"alpha": 0.5, "transB": trans}))


def _map(kind: Any, *shape: int, step: float = 0.0193) -> list[np.ndarray]:
    """Integers, their scale and their zero point; no scale is a multiple of another: no ties."""
    return [integers(*shape, dtype=kind), scale(step), zero(127 if kind is np.uint8 else 0, kind)]


_STRIDED = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
UNARY = [
    ("QLinearSigmoid", {}, 1 / 256),
    ("QLinearLeakyRelu", {"alpha": 0.2}, 0.0211),
    ("QLinearSoftmax", {"axis": 1, "opset": 13}, 1 / 128),
    ("QLinearSoftmax", {"axis": -1, "opset": 12}, 1 / 128),
    ("QLinearSoftmax", {"axis": 2, "opset": 12}, 1 / 1024),
    ("QLinearAveragePool", {**_STRIDED, "channels_last": 0}, 0.0211),
    ("QLinearAveragePool", {**_STRIDED, "count_include_pad": 1, "channels_last": 0}, 0.0211),
    ("QLinearAveragePool", {**_STRIDED, "ceil_mode": 1, "channels_last": 0}, 0.0211),
    ("QLinearAveragePool", {"kernel_shape": [2, 2], "channels_last": 1}, 0.0211),
    ("QLinearGlobalAveragePool", {"channels_last": 0}, 0.0041),
    ("QLinearGlobalAveragePool", {"channels_last": 1}, 0.0041),
]


@KINDS
@pytest.mark.parametrize(("op_type", "attributes", "step"), UNARY)
def test_unary(op_type: str, attributes: dict[str, Any], step: float, kind: Any) -> None:
    positive = op_type in ("QLinearSigmoid", "QLinearSoftmax")
    middle = 127 if kind is np.uint8 else 0
    offset = int(np.iinfo(kind).min) if positive else middle
    inputs = [*_map(kind, 5, 6, 7, 8), scale(step), zero(offset, kind)]
    assert_within_one_step(*one_node(op_type, inputs, attributes))


@KINDS
@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("other", [(4, 5, 6), (1, 5, 1)])
def test_binary(op_type: str, other: tuple[int, ...], kind: Any) -> None:
    a, b = _map(kind, 4, 5, 6), _map(kind, *other, step=0.0117)
    inputs = [*a, *b, scale(0.0311), zero(9, kind)]
    assert_within_one_step(*one_node(op_type, inputs))


@KINDS
def test_concat(kind: Any) -> None:
    parts = [*_map(kind, 2, 3, 4), *_map(kind, 2, 5, 4, step=0.0531)]
    inputs = [scale(0.0307), zero(30, kind), *parts]
    assert_within_one_step(*one_node("QLinearConcat", inputs, {"axis": 1}, fed=(2, 5)))


@KINDS
def test_where(kind: Any) -> None:
    condition = RNG.integers(0, 2, (4, 5)).astype(bool)
    inputs = [condition, *_map(kind, 4, 5), *_map(kind, 4, 5, step=0.0531), scale(0.0307)]
    model, feeds = one_node("QLinearWhere", [*inputs, zero(3, kind)], fed=(0, 1, 4))
    assert_within_one_step(model, feeds)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantisation_in_the_runtimes_own_domain(kind: Any) -> None:
    """The quantiser writes it for 16 bits, which the standard's lacked before opset 21."""
    x = RNG.standard_normal((4, 5)).astype(np.float32)
    model, feeds = one_node("QuantizeLinear", [x, scale(1e-2), zero(7, kind)])
    canonical = assert_within_one_step(model, feeds)
    assert canonical.opset_import[0].version == 21


# -- whole files ---------------------------------------------------------------------------------


def _residual_cnn() -> onnx.ModelProto:
    """`small_cnn`, with a residual, a concatenation and a softmax."""
    model = small_cnn()
    graph = model.graph
    extra = onnx.parser.parse_graph(
        """g (float[N, 8, 32, 32] r1) => (float[N, 8, 32, 32] q) {
            t = Conv <pads = [1, 1, 1, 1]> (r1, wt)
            s = Add (t, r1)
            rs = Relu (s)
            l = LeakyRelu <alpha = 0.2> (t)
            k = Concat <axis = 1> (rs, l)
            q = Conv (k, wk)
        }"""
    )
    rng = np.random.default_rng(8)
    for name, shape, deviation in (("wt", (8, 8, 3, 3), 0.1), ("wk", (8, 16, 1, 1), 0.3)):
        value = rng.normal(0, deviation, shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(value, name))
    nodes = [*graph.node[:2], *extra.node, *graph.node[2:]]
    nodes[2 + len(extra.node)].input[0] = "q"
    for node in nodes:
        node.name = node.name or f"{node.output[0]}_node"
    del graph.node[:]
    graph.node.extend(onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes)
    return model


@pytest.fixture(scope="module", params=["uint8", "int8", "uint8-channel"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A float model and what the runtime's quantiser makes of it in operator format."""
    folder = tmp_path_factory.mktemp("operators")
    source, target = folder / "float.onnx", folder / "int.onnx"
    model = _residual_cnn()
    onnx.save(model, source)
    quantize_static(
        source,
        target,
        Calibration(),
        quant_format=QuantFormat.QOperator,
        activation_type=QuantType.QInt8 if request.param == "int8" else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=request.param.endswith("channel"),
    )
    return model, onnx.load(target)


Pair = tuple[onnx.ModelProto, onnx.ModelProto]


def test_the_file_holds_what_these_tests_are_about(pair: Pair) -> None:
    ops = {node.op_type for node in pair[1].graph.node}
    expected = {
        "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearConcat", "QLinearLeakyRelu",
        "QLinearGlobalAveragePool",
    }  # fmt: skip
    assert ops >= expected
    assert not {"Relu", "Clip"} & ops


def test_end_to_end_bit_equal_at_default_optimisation(pair: Pair) -> None:
    _, file = pair
    x = pictures(8, seed=5)
    canonical = canonicalize(file)
    assert {node.domain for node in canonical.graph.node} == {""}
    assert not any("QLinear" in node.op_type for node in canonical.graph.node)
    assert canonical_facts(canonical)["batch"] == "free"
    expected = session(file).run(["scores"], {"image": x})[0]
    got = run(canonical, {"image": x})["scores"]
    np.testing.assert_array_equal(got, expected)


def test_coverage_lists_every_folded_relu(pair: Pair) -> None:
    model, file = pair
    guided = gr.differentiate(file, wrt=["image"], relu="guided")
    relus = gr.coverage(guided).relus
    assert [(a.kind, a.rule) for a in relus] == [("folded", "guided")] * 4
    original = gr.coverage(gr.differentiate(model, wrt=["image"], relu="guided"))
    assert len(relus) == len(original.relus)


def test_layers_have_the_names_of_the_float_model(pair: Pair) -> None:
    """The quantiser puts a suffix behind them, which the float in front has no more."""
    model, file = pair
    named = {output for node in model.graph.node for output in node.output}
    maps = gr.feature_maps(file)
    assert len(maps) >= 5
    assert {found.tensor for found in maps} - named == {"p_quantized"}  # a pool of integers
    assert [found.tensor for found in maps if found.default] == ["c3"]  # r3 went into its step


def test_guided_is_not_the_gradient_and_like_the_float_twins(pair: Pair) -> None:
    model, file = pair
    x = pictures(6, seed=2)
    guided, gradient = (pixel_map(file, relu, x) for relu in ("guided", "gradient"))
    assert np.linalg.norm(guided - gradient) > 0.1 * np.linalg.norm(gradient)
    twin = pixel_map(model, "guided", x)
    assert min(spearman(a, b) for a, b in zip(guided, twin, strict=True)) >= 0.85


def test_the_gradient_is_exact_for_the_function_that_the_file_approximates(pair: Pair) -> None:
    grads = gr.differentiate(pair[1], wrt=["image"])
    assert directional_error(grads, {"image": pictures(1, seed=7)}, "image") <= 1e-6


def test_the_explanation_model_runs_and_keeps_the_scores(pair: Pair) -> None:
    _, file = pair
    x = pictures(4, seed=5)
    feeds = {"image": x, "target": np.full(4, -1)}
    out = run(gr.explanation_model(file, ("grad_cam", "guided_backprop")), feeds)
    assert out["map/grad_cam"].shape == (4, 32, 32)
    assert np.abs(out["map/guided_backprop"]).max() > 0
    np.testing.assert_array_equal(out["scores"], run_raw(file, x))


def run_raw(file: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return session(file).run(["scores"], {"image": x})[0]


def test_a_file_that_the_runtime_laid_out_anew_is_read_too(pair: Pair, tmp_path: Path) -> None:
    """At its highest level the runtime puts the channels last; without floats that is portable."""
    _, file = pair
    saved = tmp_path / "all.onnx"
    session(file, save_to=str(saved))
    laid_out = onnx.load(saved)
    ops = {(node.domain, node.op_type) for node in laid_out.graph.node}
    assert ops >= {(MICROSOFT, "QLinearConv"), (MICROSOFT, "NhwcMaxPool")}
    x = pictures(3, seed=6)
    got = run(canonicalize(laid_out), {"image": x})["scores"]
    np.testing.assert_array_equal(got, run_raw(file, x))
    guided = gr.differentiate(laid_out, wrt=["image"], relu="guided")
    assert [a.kind for a in gr.coverage(guided).relus] == ["folded"] * 4
