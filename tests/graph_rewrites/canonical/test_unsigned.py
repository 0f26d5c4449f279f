"""int8 activations become uint8 where the runtime would make them so, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from graph_rewrites.canonical import canonicalize
from tests.graph_rewrites.runtime import run

HEAD = """<ir_version: 10, opset_import: ["" : 21]> net (float[N,3,6,6] x) => ({outputs})
<float s = {{0.02}}, int8 z = {{-100}}, int8 other = {{7}}> {{
    q = QuantizeLinear(x, s, z)
    {body}
}}"""
PAIR = "y = DequantizeLinear(q, s, z)"
KEPT = {
    "two that read the pair's end": ("d = DequantizeLinear(q, s, z) e = Neg(d) y = Mul(d, e)", "y"),
    "two ends": (
        "a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) y = Add(a, b)", "y",
    ),
    "moved in between": (
        "m = MaxPool<kernel_shape=[2,2]>(q) y = DequantizeLinear(m, s, z)", "y",
    ),
    "integers that leave the network": (PAIR, "q"),
    "another reader": ("c = Cast<to=1>(q) d = DequantizeLinear(q, s, z) y = Add(c, d)", "y"),
}  # fmt: skip


def network(body: str, *outputs: str) -> onnx.ModelProto:
    kinds = {"q": "int8", "y": "float"}
    declared = ", ".join(f"{kinds[name]}[N,3,h,w] {name}" for name in outputs)
    return onnx.parser.parse_model(HEAD.format(outputs=declared, body=body))


def kind_of(model: onnx.ModelProto) -> int:
    """The type of the zero point that the picture is quantised with."""
    (node,) = (node for node in model.graph.node if node.op_type == "QuantizeLinear")
    return next(w.data_type for w in model.graph.initializer if w.name == node.input[2])


def same_outputs(model: onnx.ModelProto, canonical: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).normal(0, 2, (2, 3, 6, 6)).astype(np.float32)
    for optimised in (False, True):
        got = run(canonical, {"x": x}, optimised=optimised)
        for name, expected in run(model, {"x": x}, optimised=optimised).items():
            np.testing.assert_array_equal(got[name], expected)


@pytest.mark.parametrize(
    "body", [PAIR, "y = DequantizeLinear(q, s, other)"], ids=["one zero point", "two zero points"]
)
def test_a_pair_becomes_unsigned_and_stands_for_the_same(body: str) -> None:
    model = network(body, "y")
    canonical = canonicalize(model)
    assert kind_of(canonical) == onnx.TensorProto.UINT8
    same_outputs(model, canonical)


def test_a_type_that_no_zero_point_tells() -> None:
    text = onnx.printer.to_text(network("y = DequantizeLinear(q, s)", "y"))
    text = text.replace("QuantizeLinear (x, s, z)", "QuantizeLinear<output_dtype=3>(x, s)", 1)
    model = onnx.parser.parse_model(text)
    assert "output_dtype" in onnx.printer.to_text(model)
    canonical = canonicalize(model)
    assert kind_of(canonical) == onnx.TensorProto.UINT8
    same_outputs(model, canonical)


@pytest.mark.parametrize("case", KEPT)
def test_what_the_runtime_leaves_stays(case: str) -> None:
    body, output = KEPT[case]
    model = network(body, output)
    canonical = canonicalize(model)
    assert kind_of(canonical) == onnx.TensorProto.INT8
    same_outputs(model, canonical)


def test_the_gradient_is_per_dequantised_step() -> None:
    """The integers are 128 greater; what they stand for, and its derivative, are not."""
    model = network("d = DequantizeLinear(q, s, z) y = Mul(d, d)", "y")
    grads = gr.differentiate(model, ["x"], of="y")
    x = np.random.default_rng(1).normal(0, 2, (1, 3, 6, 6)).astype(np.float32)
    out = run(grads, {"x": x, "cotangent": np.ones_like(x)})
    np.testing.assert_allclose(out["grad/x"] ** 2, 4 * out["y"], rtol=1e-6)
