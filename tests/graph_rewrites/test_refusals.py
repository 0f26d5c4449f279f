"""Every refusal is one line that names the operator, the node, the opset and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graph_rewrites as gr

from .samples import graph_of

REMEDIES = (
    "add", "choose", "declare", "explain", "export", "give", "override", "quantise", "run", "save",
    "use", "write",
)  # fmt: skip
"""What a message may ask for: it stands behind a semicolon."""


@dataclass(frozen=True)
class Refusal:
    """A model that is refused, and what the message must name.

    Attributes:
        model: its graph in ONNX's notation, or what makes it; the culprit is named `culprit`.
        op: the operator that is named.
        error: the type of the error.
        opset: the operator set that the file has; that of canonical form is 18 at least.
        weights: initializers.
        call: arguments of `differentiate` beside the model.
    """

    model: str | Callable[[], onnx.ModelProto]
    op: str
    error: type[Exception]
    opset: int = 18
    weights: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)

    def made(self) -> onnx.ModelProto:
        if not isinstance(self.model, str):
            return self.model()
        weights = {name: np.asarray(value) for name, value in self.weights.items()}
        return graph_of(f"g {self.model}", self.opset, **weights)


def _if_of_the_picture() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 2])
    branch = helper.make_graph([helper.make_node("Exp", ["x"], ["t"])], "branch", [], [value])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "top"], ["c"]),
        helper.make_node("If", ["c"], ["y"], "culprit", then_branch=branch, else_branch=branch),
    ]
    return _model(nodes)


def _loop() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Exp", ["s"], ["t"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("s", 1, None)],
        [info("on", TensorProto.BOOL, []), info("t", 1, None)],
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Squeeze", ["n"], ["times"]),
        helper.make_node("Loop", ["times", "", "x"], ["y"], "culprit", body=body),
    ]
    return _model(nodes)


def _scan() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Exp", ["s"], ["t"])], "body", [info("s", 1, [2])], [info("t", 1, [2])]
    )
    return _model([helper.make_node("Scan", ["x"], ["y"], "culprit", body=body, num_scan_inputs=1)])


def _blocked_layout() -> onnx.ModelProto:
    domain = "com.microsoft.nchwc"
    model = _model([helper.make_node("ReorderInput", ["x"], ["y"], "culprit", domain=domain)])
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def _model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


PICTURE = "(float[N, 2, 6, 6] x) => (float[N, A, B, C] y)"
ROW = "(float[N, 4] x) => (float[N, A] y)"
ONES = np.ones(2, np.float32)
REFUSED = {
    "no rule": Refusal(f"{ROW} {{ [culprit] y = Unique(x) }}", "Unique", gr.MissingRuleError),
    "a foreign domain": Refusal(
        f"{ROW} {{ [culprit] y = my.Odd(x) }}", "my.Odd", gr.MissingRuleError
    ),
    "sequences": Refusal(
        f"{ROW} {{ s = SequenceConstruct(x, x) [culprit] y = ConcatFromSequence<axis = 1>(s) }}",
        "ConcatFromSequence",
        gr.MissingRuleError,
    ),
    "a branch": Refusal(_if_of_the_picture, "If", gr.UnsupportedControlFlowError),
    "a loop": Refusal(_loop, "Loop", gr.UnsupportedControlFlowError),
    "a scan": Refusal(_scan, "Scan", gr.UnsupportedControlFlowError),
    "batch statistics": Refusal(
        f"{PICTURE} {{ [culprit] y = BatchNormalization<training_mode = 1>(x, w, w, w, w) }}",
        "BatchNormalization",
        gr.ModelError,
        weights={"w": ONES},
    ),
    "dropout at work": Refusal(
        f"{ROW} {{ [culprit] y = Dropout(x, rate, on) }}",
        "Dropout",
        gr.ModelError,
        weights={"rate": np.float32(0.5), "on": np.array(True)},
    ),
    "one machine's layout": Refusal(
        _blocked_layout, "com.microsoft.nchwc.ReorderInput", gr.UnsupportedOperatorError
    ),
    "a made-up operator": Refusal(
        f"{ROW} {{ [culprit] y = Wonder(x) }}", "Wonder", gr.UnsupportedOperatorError, opset=13
    ),
    "a compiled function of TensorFlow": Refusal(
        f"{ROW} {{ [culprit] y = StatefulPartitionedCall(x) }}",
        "StatefulPartitionedCall",
        gr.UnsupportedOperatorError,
    ),
    "half of TensorFlow's GELU": Refusal(
        f"{ROW} {{ [culprit] y = Erfc(x) }}", "Erfc", gr.UnsupportedOperatorError
    ),
    "a young operator without a body": Refusal(
        f"{ROW} {{ [culprit] y = BitCast<to = 1>(x) }}",
        "BitCast",
        gr.UnsupportedOperatorError,
        opset=26,
    ),
    "a weight made of the picture": Refusal(
        f"{PICTURE} {{ w = Sigmoid(x) [culprit] y = Conv<kernel_shape = [6, 6]>(x, w) }}",
        "Conv",
        gr.RuleError,
    ),
    "a bound made of the picture": Refusal(
        f"{ROW} {{ s = ReduceMean<keepdims = 0>(x) [culprit] y = Clip(x, s) }}",
        "Clip",
        gr.RuleError,
    ),
    "a path that ends": Refusal(
        f"{ROW} {{ [culprit] i = ArgMax<axis = 1>(x) f = Cast<to = 1>(i) y = Exp(f) }}",
        "ArgMax",
        gr.NoGradientPathError,
    ),
    "a shape of the data": Refusal(
        f"{ROW} {{ [culprit] k = NonZero(x) f = Cast<to = 1>(k) y = Exp(f) }}",
        "NonZero",
        gr.NoGradientPathError,
    ),
    "an unknown rank": Refusal(
        f"{PICTURE} {{ u = my.Odd(x) [culprit] y = LayerNormalization(u, w) }}",
        "LayerNormalization",
        gr.UnknownShapeError,
        weights={"w": np.ones(6, np.float32)},
        call={"wrt": "u"},
    ),
    "a rank that a custom operator hides": Refusal(
        f"{PICTURE} {{ [culprit] u = my.Odd(x) v = Relu(u) y = LayerNormalization(v, w) }}",
        "my.Odd",
        gr.UnknownShapeError,
        weights={"w": np.ones(6, np.float32)},
        call={"wrt": "u"},
    ),
    "a size that must be fixed": Refusal(
        "(float[N, K, L] x) => (float[N, A, B, C] y) { [culprit] y = Col2Im(x, picture, block) }",
        "Col2Im",
        gr.UnknownShapeError,
        weights={"picture": np.array([4, 4]), "block": np.array([2, 2])},
    ),
    "pads of an unknown size": Refusal(
        "(float[N, 2, H, W] x) => (float[N, A, B, C] y)"
        ' { [culprit] y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w) }',
        "Conv",
        gr.UnknownShapeError,
        weights={"w": np.ones((2, 2, 3, 3), np.float32)},
    ),
    "strict about other activations": Refusal(
        f"{ROW} {{ [culprit] y = Elu(x) }}",
        "Elu",
        gr.RuleError,
        call={"other_activations": "strict"},
    ),
}


@pytest.mark.parametrize("refusal", REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_what_and_where_and_what_to_do(refusal: Refusal) -> None:
    call = {"wrt": "x", "of": "y", **refusal.call}
    with pytest.raises(refusal.error) as caught:
        gr.differentiate(refusal.made(), **call)
    said = str(caught.value)
    assert "\n" not in said
    name = rf"{re.escape(refusal.op)} \(node 'culprit', output '\w+', opset {refusal.opset}\)"
    assert re.search(name, said), said
    assert said.rpartition("; ")[2].split()[0] in REMEDIES, said
