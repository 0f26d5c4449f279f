"""The form for CUDA: no node that the runtime has no CUDA kernel for, and no sizes left to compute.

Where no GPU is at hand this is what can be shown. Which operators have kernels was read from the
registry of onnxruntime-gpu 1.31.1, opset 18 to 21.
"""

from __future__ import annotations

import onnx
import pytest

import graph_rewrites as gr
from tests.graph_rewrites.samples import LIGHT, light, with_random_weights
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
    lowered = gr.lower(built, "cuda", {tensor: x.shape, "target": (1,)})
    assert_stays_on_the_device(lowered)


@pytest.mark.parametrize("name", [n for n in CASES if n != "a quantised weight"])
def test_every_case_of_a_pattern(name: str) -> None:
    grads = gr.differentiate(CASES[name].model(), "x", of="y")
    assert_stays_on_the_device(gr.lower(grads, "cuda", shapes(CASES[name], 2)))
