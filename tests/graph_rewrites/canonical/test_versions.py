"""Every version of every operator that changed its meaning, at the operator sets that changed it.

Each case is a network of two layers, a convolution and the operator. Its canonical form must give
the original's numbers in the runtime, keep the operator's name for its result, and have the
gradient of its own forward. IR versions 3 to 13 take turns; in IR 3 weights are graph inputs.
"""

import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from graph_rewrites import differentiate
from graph_rewrites.canonical import canonicalize
from graph_rewrites.sharp import directional_error
from graph_rewrites.sharp_norms import NORMS
from tests.graph_rewrites.canonical.operator_versions import CASES, GIVEN, Written
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of


def _model(case: Written, opset: int, ir: int) -> onnx.ModelProto:
    body = f"h = Conv<pads=[1,1,1,1]>(x, w)  {case.body}  y = Identity(r)"
    read = set(re.findall(r"\w+", body))
    given = {name: np.asarray(value) for name, value in GIVEN.items() if name in read}
    model = graph_of(f"agraph (float[2,4,6,6] x) => (float y) {{ {body} }}", opset, ir, **given)
    if ir < 4:
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
    return model


def _outcome(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What the runtime computes, or the reference where the runtime has no kernel yet."""
    try:
        return session(model).run(None, feeds)[0]
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:
        return ReferenceEvaluator(model, new_ops=list(NORMS)).run(None, feeds)[0]


MATRIX = [
    pytest.param(case, opset, 3 + at % 11, id=f"{case.op}-{opset}{case.note and '-' + case.note}")
    for at, (case, opset) in enumerate((case, opset) for case in CASES for opset in case.opsets())
]


@pytest.mark.parametrize(("case", "opset", "ir"), MATRIX)
def test_the_same_numbers_and_their_gradient(case: Written, opset: int, ir: int):
    model = _model(case, opset, ir)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)}
    expected = _outcome(model, feeds)
    declared = helper.make_tensor_value_info("y", 1, expected.shape)
    model.graph.output[0].CopyFrom(declared)
    canonical = canonicalize(model)
    computed = {name for node in canonical.graph.node for name in node.output}
    assert "r" in computed or case.op == "Dropout"  # which goes
    result = run(canonical, feeds)["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    grads = differentiate(canonical, ["x"], of="y")
    assert directional_error(grads, feeds, "x", of="y", directions=2) <= 1e-6
