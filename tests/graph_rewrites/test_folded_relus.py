"""ReLUs that the quantiser removed: which QuantizeLinear does the work of one."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import graph_rewrites as gr

MOVED = {
    "MaxPool": "b = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "GlobalMaxPool": "b = GlobalMaxPool(a)",
    "AveragePool": "b = AveragePool<kernel_shape=[2,2]>(a)",
    "GlobalAveragePool": "b = GlobalAveragePool(a)",
    "ReduceMean": "b = ReduceMean<axes=[2,3]>(a)",
    "Concat": "b = Concat<axis=1>(zeros, a)",
    "Slice": "b = Slice(a, first, third)",
    "Split": "b, rest = Split<axis=1>(a)",
    "Pad": "b = Pad(a, pads)",
    "Resize": 'b = Resize<mode="linear">(a, , scales)',
    "DepthToSpace": "b = DepthToSpace<blocksize=2>(a)",
    "nothing": "b = Identity(a)",
}
CONSTANTS = {
    "zeros": np.zeros((1, 4, 8, 8), np.float32),
    "first": np.array([0, 0]),
    "third": np.array([1, 2]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "weight": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
    "step": np.array(0.02, np.float32),
    "middle": np.array(128, np.uint8),
    "least": np.array(0, np.uint8),
}


def folded(body: str, **constants: np.ndarray) -> int:
    """How many folded ReLUs `body` has, which makes r from the picture x (1, 3, 8, 8)."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> '
        f"g (float[1,3,8,8] x) => (float[1,c,1,1] y) {{ {body} y = GlobalMaxPool(r) }}"
    )
    for name, value in {**CONSTANTS, **constants}.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    found = gr.coverage(gr.canonicalize(model)).activations
    return sum(activation.kind == "folded" for activation in found)


def pair(source: str, result: str, zero: str) -> str:
    return (
        f"{result}_q = QuantizeLinear({source}, step, {zero}) "
        f"{result} = DequantizeLinear({result}_q, step, {zero}) "
    )


@pytest.mark.parametrize("mover", MOVED)
def test_what_an_operator_moves_is_rectified_behind_it(mover):
    conv = "c = Conv<pads=[1,1,1,1]>(x, weight) "
    signed = conv + pair("c", "a", "middle") + MOVED[mover] + " "
    assert folded(signed + pair("b", "r", "least")) == 1
    assert folded(signed + pair("b", "r", "middle")) == 0
    at_once = conv + pair("c", "a", "least") + MOVED[mover] + " "
    assert folded(at_once + pair("b", "r", "least")) == 1  # in front of the mover, and no more


@pytest.mark.parametrize(("least", "found"), [(99, 1), (100, 0)])
@pytest.mark.parametrize("operator", ["Mul", "Add"])
def test_a_quantised_constant_counts_by_its_values(operator, least, found):
    body = (
        "c = Conv<pads=[1,1,1,1]>(x, weight) a = Relu(c) "
        "k = DequantizeLinear(stored, step, point) "
        f"b = {operator}(a, k) " + pair("b", "r", "least")
    )
    stored = np.array([least, 100, 120, 255], np.uint8).reshape(4, 1, 1)
    assert folded(body, stored=stored, point=np.array(100, np.uint8)) == found
