"""The three ReLU rules, where they apply, and the report that says so."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graph_rewrites as gr

from .runtime import run

X = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, 7.0]], np.float32)
CT = np.array([[1.0, -1.0, 1.0, -1.0, 3.0, 4.0]], np.float32)


def one_node(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N, 6] x) => (float[N, 6] y)'
        f" <float lo = {{0.0}}, float hi = {{6.0}}> {{ {text} }}"
    )


def backward(model: onnx.ModelProto, relu: str) -> np.ndarray:
    grads = gr.differentiate(model, wrt=["x"], of="y", relu=relu)
    return run(grads, {"x": X, "cotangent": CT})["grad/x"]


@pytest.mark.parametrize(
    ("node", "relu", "expected"),
    [
        ("y = Relu(x)", "gradient", [0, 0, 0, -1, 3, 4]),
        ("y = Relu(x)", "deconvnet", [1, 0, 1, 0, 3, 4]),
        ("y = Relu(x)", "guided", [0, 0, 0, 0, 3, 4]),
        ("y = Clip(x, lo)", "gradient", [0, 0, 0, -1, 3, 4]),
        ("y = Clip(x, lo)", "deconvnet", [1, 0, 1, 0, 3, 4]),
        ("y = Clip(x, lo)", "guided", [0, 0, 0, 0, 3, 4]),
        ("y = Clip(x, lo, hi)", "gradient", [0, 0, 0, -1, 3, 0]),
        ("y = Clip(x, lo, hi)", "deconvnet", [1, 0, 1, 0, 3, 4]),
        ("y = Clip(x, lo, hi)", "guided", [0, 0, 0, 0, 3, 0]),
    ],
)
def test_rules(node: str, relu: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(backward(one_node(node), relu), [expected])


def test_the_clip_of_a_hard_sigmoid_is_no_relu() -> None:
    model = one_node(
        "three = Constant <value_float = 3.0> () a = Add(x, three) c = Clip(a, lo, hi)"
        " y = Div(c, hi)"
    )
    grads = gr.differentiate(model, wrt=["x"], of="y", relu="guided")
    (activation,) = gr.coverage(grads).activations
    assert (activation.kind, activation.rule) == ("smooth", "gradient")


def test_a_clip_that_keeps_a_norm_off_zero_is_no_activation() -> None:
    model = one_node(
        "eps = Constant <value_float = 1e-3> () n = ReduceL2 <keepdims = 1> (x) c = Clip(n, eps)"
        " y = Div(x, c)"
    )
    strict = gr.differentiate(model, wrt=["x"], of="y", other_activations="strict")
    assert not gr.coverage(strict).activations


def test_replacing_the_rule_equals_differentiating_with_it() -> None:
    model = one_node("a = Relu(x) b = Neg(a) c = Clip(b, lo, hi) d = Add(a, c) y = Relu(d)")
    for first in ("gradient", "deconvnet", "guided"):
        grads = gr.differentiate(model, wrt=["x"], of="y", relu=first)
        for second in ("gradient", "deconvnet", "guided"):
            replaced = gr.replace_relu_rule(grads, second)
            direct = gr.differentiate(model, wrt=["x"], of="y", relu=second)
            feeds = {"x": X, "cotangent": CT}
            np.testing.assert_array_equal(
                run(replaced, feeds)["grad/x"], run(direct, feeds)["grad/x"]
            )
            assert gr.coverage(replaced) == gr.coverage(direct)
            assert list(replaced.graph.node) == list(direct.graph.node)


def test_replacing_touches_only_the_nodes_of_its_prefix_and_of_relus() -> None:
    model = one_node("a = Relu(x) y = Mul(a, a)")
    both = gr.differentiate(model, wrt=["x"], of="y")
    both = gr.differentiate(both, wrt=["x"], of="y", prefix="other")
    replaced = gr.replace_relu_rule(both, "guided", prefix="other")

    def kept(m: onnx.ModelProto) -> set[bytes]:
        return {
            node.SerializeToString(deterministic=True)
            for node in m.graph.node
            if not node.name.startswith("bwd/other/a/")
        }

    assert kept(both) == kept(replaced)
    assert gr.coverage(both) == gr.coverage(replaced)
    assert [a.rule for a in gr.coverage(replaced, "other").activations] == ["guided"]
    with pytest.raises(gr.UnknownTensorError, match="third"):
        gr.replace_relu_rule(both, "guided", prefix="third")


def test_backward_nodes_are_stamped_with_forward_node_operator_and_rule() -> None:
    grads = gr.differentiate(
        one_node("a = Relu(x) y = Mul(a, a)"), wrt=["x"], of="y", relu="guided"
    )
    stamps = {
        node.name: {entry.key: entry.value for entry in node.metadata_props}
        for node in grads.graph.node
        if node.name.startswith("bwd/")
    }
    relu = [s for s in stamps.values() if s["graph_rewrites.op"] == "Relu"]
    assert relu
    assert all(s["graph_rewrites.forward"] == "a" for s in relu)
    assert all(s["graph_rewrites.rule"] == "guided" for s in relu)
    assert all(name.startswith("bwd/grad/") for name in stamps)


def test_other_activations() -> None:
    model = one_node("s = Sigmoid(x) n = Neg(s) y = Sigmoid(n)")
    plain = run(gr.differentiate(model, wrt=["x"], of="y"), {"x": X, "cotangent": CT})["grad/x"]
    positive = gr.differentiate(model, wrt=["x"], of="y", other_activations="positive")
    clamped = run(positive, {"x": X, "cotangent": CT})["grad/x"]
    assert (plain > 0).any() and (plain < 0).any()
    assert (clamped >= 0).all()
    assert {a.rule for a in gr.coverage(positive).activations} == {"positive"}
    with pytest.raises(gr.RuleError, match="strict"):
        gr.differentiate(model, wrt=["x"], of="y", other_activations="strict")


def test_coverage_lists_what_the_sweep_did_not_reach() -> None:
    model = one_node("a = Relu(x) b = Relu(a) y = Mul(b, b)")
    grads = gr.differentiate(model, wrt=["a"], of="y", relu="guided")
    assert [(a.tensor, a.rule) for a in gr.coverage(grads).activations] == [
        ("a", "not reached"),
        ("b", "guided"),
    ]
