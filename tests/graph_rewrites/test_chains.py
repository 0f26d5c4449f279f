"""Activations as exporters write them: found, named once, given the rule that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

import graph_rewrites as gr
from graph_rewrites.canonical import open_canonical
from graph_rewrites.chains import find_chains
from graph_rewrites.rules.relu import relu_site
from graph_rewrites.sharp import directional_error

from .runtime import run
from .spellings import ARRAYS, CONSTANTS, QUANTISED, RELUS, SMOOTH, Table

X = np.array([[-4.0, -1.3, -0.4, 0.7, 2.6, 7.0]], np.float32)
CT = np.array([[1.0, -1.0, 0.5, -1.0, 3.0, -2.0]], np.float32)


def network(text: str, outputs: str = "float[N, 6] y") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[N, 6] x) => ({outputs}) {{ {text} }}'
    )
    values = {name: np.array(value, np.float32) for name, value in CONSTANTS.items()} | ARRAYS
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in values.items() if name in read
    )
    return model


def backward(model: onnx.ModelProto, **settings: str) -> np.ndarray:
    grads = gr.differentiate(model, wrt=["x"], of="y", **settings)
    return run(grads, {"x": X, "cotangent": CT})["grad/x"]


def listed(model: onnx.ModelProto, **settings: str) -> list[tuple[str, str, str]]:
    grads = gr.differentiate(model, wrt=["x"], of="y", **settings)
    return [(a.op_type, a.kind, a.rule) for a in gr.coverage(grads).activations]


def cases(table: Table) -> list[object]:
    return [
        pytest.param(twin, name, text, id=f"{name}: {exporter}")
        for (twin, name), spellings in table.items()
        for exporter, text in spellings.items()
    ]


@pytest.mark.parametrize("relu", ["gradient", "deconvnet", "guided"])
@pytest.mark.parametrize(("twin", "name", "text"), cases(RELUS))
def test_a_relu_in_several_operators_gets_the_rule_of_a_relu(twin, name, text, relu) -> None:
    model = network(text)
    kind = "relu" if name == "ReLU" else "clip"
    assert listed(model, relu=relu) == [(name, kind, relu)]
    np.testing.assert_array_equal(
        backward(model, relu=relu), backward(network(f"y = {twin}"), relu=relu)
    )


@pytest.mark.parametrize(("twin", "name", "text"), cases(RELUS))
def test_replacing_the_rule_of_a_chain_gives_the_nodes_of_a_direct_build(twin, name, text) -> None:
    model = network(
        f"{text.replace('y =', 'w =')} rest = Neg(x) both = Add(w, rest) y = Relu(both)"
    )
    first = gr.differentiate(model, wrt=["x"], of="y")
    for relu in ("deconvnet", "guided", "gradient"):
        direct = gr.differentiate(model, wrt=["x"], of="y", relu=relu)
        assert list(gr.replace_relu_rule(first, relu).graph.node) == list(direct.graph.node)


@pytest.mark.parametrize(("twin", "name", "text"), cases(SMOOTH))
def test_a_smooth_activation_is_listed_once_and_clamped_as_a_whole(twin, name, text) -> None:
    model = network(text)
    for policy in ("gradient", "positive"):
        assert listed(model, other_activations=policy) == [(name, "smooth", policy)]
    plain = backward(model)
    assert (plain > 0).any() and (plain < 0).any()
    clamped = backward(model, other_activations="positive")
    np.testing.assert_array_equal(clamped, np.maximum(plain, 0))
    if twin:
        expected = backward(network(f"y = {twin}"), other_activations="positive")
        np.testing.assert_allclose(clamped, expected, rtol=1e-4, atol=2e-5)
    with pytest.raises(gr.RuleError, match=f"^{name} .*written as .* 'strict'"):
        backward(model, other_activations="strict")


def test_what_else_reads_the_input_is_added_outside_of_the_clamp() -> None:
    model = network("s = Sigmoid(x) a = Mul(x, s) y = Sub(a, x)")
    alone = network("s = Sigmoid(x) y = Mul(x, s)")
    expected = np.maximum(backward(alone), 0) - CT
    np.testing.assert_allclose(backward(model, other_activations="positive"), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("r = Relu(x) y = Clip(r, zero, six)", [("Relu", "relu"), ("Clip", "clip")]),
        ("r = Clip(x, zero, six) y = Relu(r)", [("Clip", "clip"), ("Relu", "relu")]),
        ("h = HardSigmoid(x) y = Relu(h)", [("HardSigmoid", "smooth"), ("Relu", "relu")]),
        (
            "a = Max(x, zero) b = Min(a, six) y = Max(b, zero)",
            [("ReLU", "relu"), ("ReLU6", "clip")],
        ),
    ],
)  # fmt: skip
def test_two_activations_in_a_row_stay_two(text, expected) -> None:
    assert [(name, kind) for name, kind, _ in listed(network(text))] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m = ReduceMean<keepdims=1>(x) s = Sigmoid(m) y = Mul(x, s)", ["Sigmoid"]),
        ("n = Neg(x) s = Sigmoid(n) y = Mul(x, s)", ["Sigmoid"]),
        ("d = Div(x, two) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)", []),
        ("a = Add(x, two) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", ["Clip"]),
        ("y = Max(x, tenth)", []),
        ("a = Max(x, zero) y = Add(a, tenth)", ["ReLU"]),
        ("n = Neg(x) y = Max(x, n)", []),
        ("a = Tanh(x) y = Mul(a, tenth)", ["Tanh"]),
    ],
)  # fmt: skip
def test_what_is_none_of_them_is_not_named(text, expected) -> None:
    assert [name for name, _, _ in listed(network(text))] == expected


@pytest.mark.parametrize(
    ("shape", "index"),
    [((3, 1, 16), None), ((16,), 1)],  # it repeats x; one channel has another bound
)
def test_every_value_of_a_constant_counts(shape, index) -> None:
    bound = np.zeros(shape, np.float32)
    if index is not None:
        bound[index] = 0.5
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N, 16] x) => (float y)'
        " { a = Max(x, bound) y = ReduceSum<keepdims=0>(a) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(bound, "bound"))
    assert listed(model) == []


def test_only_the_end_of_a_relu_chain_is_a_relu() -> None:
    graph = open_canonical(network("a = Relu(x) b = Min(a, six) s = Sigmoid(b) y = Mul(b, s)"))
    sites = [relu_site(graph, node, find_chains(graph)) for node in graph.nodes]
    assert [site and (site.kind, site.upper) for site in sites] == [None, ("clip", 6), None, None]


def test_a_chain_that_something_leaves_is_none() -> None:
    silu = "s = Sigmoid(x) y = Mul(x, s)"
    assert [name for name, _, _ in listed(network(silu))] == ["SiLU"]
    published = network(silu, "float[N, 6] y, float[N, 6] s")
    assert [name for name, _, _ in listed(published)] == ["Sigmoid"]
    read = network("s = Sigmoid(x) a = Mul(x, s) y = Sub(a, s)")
    assert [name for name, _, _ in listed(read)] == ["Sigmoid"]


def test_a_relu_chain_is_parted_where_a_gradient_is_wanted_inside() -> None:
    model = network("a = Relu(x) y = Min(a, six)")
    grads = gr.differentiate(model, wrt=["x", "a"], of="y", relu="guided")
    assert [(a.op_type, a.rule) for a in gr.coverage(grads).activations] == [("Relu", "guided")]
    whole = gr.differentiate(grads, wrt=["x"], of="y", relu="guided", prefix="whole")
    assert [a.op_type for a in gr.coverage(whole, "whole").activations] == ["ReLU6"]
    direct = gr.differentiate(model, wrt=["x", "a"], of="y", relu="deconvnet")
    replaced = gr.replace_relu_rule(grads, "deconvnet")
    assert list(replaced.graph.node) == list(direct.graph.node)


def test_the_rule_of_a_hard_sigmoid_does_not_depend_on_the_layer() -> None:
    model = network("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)")
    feeds = {"x": X, "cotangent": CT}
    for wrt in (["x"], ["x", "a"], ["x", "c"]):
        guided = gr.differentiate(model, wrt=wrt, of="y", relu="guided")
        assert [a.op_type for a in gr.coverage(guided).activations] == ["HardSigmoid"]
        np.testing.assert_array_equal(run(guided, feeds)["grad/x"], backward(model))


def test_a_rule_of_the_caller_comes_before_that_of_a_relu_chain() -> None:
    def twice(op, node, cts):  # type: ignore[no-untyped-def]
        del node
        return [op.Mul(cts[0], 2.0), None]

    model = network("y = Max(x, zero)")
    rules = gr.DEFAULT_RULES.override(Max=twice)
    grads = gr.differentiate(model, wrt=["x"], of="y", relu="guided", rules=rules)
    np.testing.assert_array_equal(run(grads, {"x": X, "cotangent": CT})["grad/x"], 2 * CT)
    assert [a.rule for a in gr.coverage(grads).activations] == ["gradient"]


def test_the_forward_graph_is_not_touched() -> None:
    text = "s = Sigmoid(x) a = Mul(x, s) b = Max(a, zero) y = Min(b, six)"
    canonical = gr.canonicalize(network(text))
    grads = gr.differentiate(canonical, wrt=["x"], of="y", other_activations="positive")
    assert list(grads.graph.node)[: len(canonical.graph.node)] == list(canonical.graph.node)


def test_the_activation_of_a_fused_convolution_is_listed() -> None:
    image = helper.make_tensor_value_info("x", 1, ["N", 2, 5, 5])
    result = helper.make_tensor_value_info("y", 1, ["N", 2, 5, 5])
    weight = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    fused = helper.make_node(
        "FusedConv", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu"
    )
    model = helper.make_model(
        helper.make_graph([fused], "g", [image], [result], [weight]),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    assert listed(model, relu="guided") == [("Relu", "relu", "guided")]


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.rows = iter(np.random.default_rng(0).normal(0, 2, (16, 1, 3, 8, 8)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self.rows, None)
        return None if row is None else {"x": row.astype(np.float32)}


def quantised(text: str, folder: Path, style: QuantFormat, type_: QuantType) -> onnx.ModelProto:
    """A convolution, the activation of c named a, a convolution; quantised by the runtime."""
    rng = np.random.default_rng(1)
    model = network(f"c = Conv(x, w) {text} y = Conv(a, v)")
    for value, channels in ((model.graph.input[0], 3), (model.graph.output[0], 4)):
        value.CopyFrom(helper.make_tensor_value_info(value.name, 1, ["N", channels, "H", "W"]))
    for name, shape in (("w", (8, 3, 3, 3)), ("v", (4, 8, 1, 1))):
        weight = rng.normal(0, 0.5, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "quantised.onnx",
        Calibration(),
        quant_format=style,
        activation_type=type_,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": False},
    )
    return onnx.load(folder / "quantised.onnx")


@pytest.mark.parametrize("type_", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("style", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("name", QUANTISED)
def test_chains_are_found_through_quantisation(name, style, type_, tmp_path) -> None:
    """The Clip inside HardSwish folds into a QuantizeLinear, and is no ReLU there either."""
    model = quantised(QUANTISED[name], tmp_path, style, type_)
    assert listed(model, relu="guided") == [(name, "smooth", "gradient")]
    picture = {"x": np.random.default_rng(5).normal(0, 2, (1, 3, 8, 8)).astype(np.float32)}
    grads = gr.differentiate(model, wrt=["x"], of="y", relu="guided")
    assert directional_error(grads, picture, "x", "y") <= 1e-6


@pytest.mark.parametrize("style", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Max(c, zero)", ("ReLU", "relu", "guided")),
        ("r = Max(c, zero) a = Min(r, six)", ("ReLU6", "clip", "guided")),
    ],
)
def test_quantised_relu_chains_begin_behind_the_quantisation(
    text, expected, style, tmp_path
) -> None:
    model = quantised(text, tmp_path, style, QuantType.QUInt8)
    assert listed(model, relu="guided") == [expected]
