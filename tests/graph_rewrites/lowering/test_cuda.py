"""The form for CUDA: no node that the runtime has no CUDA kernel for, and no sizes left to compute.

Where no GPU is at hand this is what can be shown. Which operators have kernels was read from the
registry of onnxruntime-gpu 1.31.1, opset 18 to 21.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import graph_rewrites as gr
from tests.graph_rewrites.samples import LIGHT, graph_of, light, with_random_weights
from tests.graph_rewrites.test_light_models import LARGE, picture

from .cases import CASES
from .test_patterns import shapes

NO_KERNEL = {
    "AffineGrid", "Celu", "Col2Im", "GlobalLpPool", "LpPool", "MaxRoiPool", "MaxUnpool", "Mean",
    "MeanVarianceNormalization",
}  # fmt: skip
SIZES = {"Shape", "Size", "Range"}
"""Their results live on the CPU: what reads them waits for a copy."""


def assert_stays_on_the_device(model: onnx.ModelProto) -> None:
    assert 18 <= model.opset_import[0].version <= 21
    operators = {node.op_type for node in model.graph.node}
    assert not operators & (NO_KERNEL | SIZES)
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for node in model.graph.node:
        if node.op_type == "ConvTranspose":  # uneven pads run on the CPU
            pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [])
            assert pads[: len(pads) // 2] == pads[len(pads) // 2 :]
        if node.op_type == "Pad":
            assert types.get(node.output[0]) != onnx.TensorProto.INT64


@pytest.mark.parametrize("name", [n for n in LIGHT if n not in LARGE])
def test_real_architectures(name: str) -> None:
    model = gr.canonicalize(with_random_weights(light(name)))
    tensor, x = picture(model)
    built = gr.explanation_model(model, ("gradient", "guided_backprop", "grad_cam"))
    for float16 in (False, True):
        lowered = gr.lower(built, "cuda", {tensor: x.shape, "target": (1,)}, float16=float16)
        onnx.checker.check_model(lowered, full_check=True)
        assert_stays_on_the_device(lowered)


@pytest.mark.parametrize("name", [n for n in CASES if n != "a quantised weight"])
def test_every_case_of_a_pattern(name: str) -> None:
    grads = gr.differentiate(CASES[name].model(), "x", of="y")
    assert_stays_on_the_device(gr.lower(grads, "cuda", shapes(CASES[name], 2)))


def gradient_of_a_small_network(seed: float, **options: bool) -> tuple[onnx.ModelProto, np.ndarray]:
    """Its lowered model, and its gradient for a cotangent of about `seed`."""
    rng = np.random.default_rng(0)
    shapes = {"k": (8, 3, 3, 3), "l": (16, 8, 3, 3), "w": (16, 5)}
    weights = {n: rng.standard_normal(s).astype(np.float32) / 8 for n, s in shapes.items()}
    text = """net (float[N,3,16,16] x) => (float[N,5] y) {
        a = Conv<strides=[2,2]>(x, k) b = Relu(a) c = Conv(b, l) d = Relu(c)
        e = GlobalAveragePool(d) f = Flatten(e) y = Gemm(f, w) }"""
    grads = gr.differentiate(graph_of(text, **weights), "x")
    x = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    ct = (seed * rng.standard_normal((2, 5))).astype(np.float32)
    feeds = {"x": x, "cotangent": ct}
    lowered = gr.lower(
        grads, "cuda", {name: value.shape for name, value in feeds.items()}, **options
    )
    outputs = [value.name for value in lowered.graph.output]
    found = ReferenceEvaluator(lowered).run(None, feeds)  # a CPU session would not round
    return lowered, found[outputs.index("grad/x")]


@pytest.mark.parametrize("seed", [1.0, 1e-4])
def test_products_in_float16(seed: float) -> None:
    _, expected = gradient_of_a_small_network(seed)
    half, found = gradient_of_a_small_network(seed, float16=True)
    types = {v.name: v.type.tensor_type.elem_type for v in _inferred(half).graph.value_info}
    products = [n for n in half.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm")]
    assert len(products) == 6
    assert all(types[n.output[0]] == onnx.TensorProto.FLOAT16 for n in products)
    assert all(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in half.graph.output)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-6 < error < 3e-3  # unscaled, the small seed would lose more


def test_float16_is_for_cuda() -> None:
    grads = gr.differentiate(next(iter(CASES.values())).model(), "x", of="y")
    with pytest.raises(ValueError, match="float16 is for the provider 'cuda', not 'cpu'"):
        gr.lower(grads, "cpu", float16=True)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model)
