"""The sweep's case list: graphs on which a careless one loses a term in silence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graph_rewrites as gr

from .runtime import run, session

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'


def parse(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD}\n{body}")


def gradient(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], wrt: str = "x", of: str = "y"
) -> np.ndarray:
    """The gradient of sum(of) by the backward graph, checked against central differences."""
    grads = gr.differentiate(model, wrt=[wrt], of=of)
    value = run(grads, feeds | {"cotangent": _ones(grads, model, feeds, of)})[f"grad/{wrt}"]
    if wrt in feeds:
        np.testing.assert_allclose(value, numeric(model, feeds, wrt, of), rtol=2e-3, atol=2e-3)
    return value


def _ones(
    grads: onnx.ModelProto, model: onnx.ModelProto, feeds: dict[str, np.ndarray], of: str
) -> np.ndarray:
    return np.ones_like(probe(model, feeds, of), np.float32)


def probe(model: onnx.ModelProto, feeds: dict[str, np.ndarray], tensor: str) -> np.ndarray:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    if tensor not in [o.name for o in tapped.graph.output]:
        tapped.graph.output.append(helper.make_empty_tensor_value_info(tensor))
    return session(tapped).run([tensor], dict(feeds))[0]


def numeric(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], wrt: str, of: str, h: float = 1e-2
) -> np.ndarray:
    x = feeds[wrt]
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        up = probe(model, feeds | {wrt: x + step}, of).sum(dtype=np.float64)
        down = probe(model, feeds | {wrt: x - step}, of).sum(dtype=np.float64)
        result[index] = (up - down) / (2 * h)
    return result


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_tensor_used_twice_by_one_node_counts_twice() -> None:
    model = parse("g (float[N, 3] x) => (float[N, 3] y) { y = Mul(x, x) }")
    x = numbers(2, 3)
    np.testing.assert_allclose(gradient(model, {"x": x}), 2 * x, rtol=1e-5)


def test_concat_of_a_tensor_with_itself() -> None:
    model = parse(
        "g (float[N, 2] x) => (float[N, 4] y) { c = Concat <axis = 1> (x, x)  y = Mul(c, c) }"
    )
    x = numbers(2, 2)
    np.testing.assert_allclose(gradient(model, {"x": x}), 4 * x, rtol=1e-5)


def test_several_consumers_are_summed_before_the_activation_rule() -> None:
    """Guided clamps the sum of -1 and +2, not each of them: 1, and not 2."""
    model = parse(
        "g (float[N, 2] x) => (float[N, 2] y) {"
        " r = Relu(x) a = Neg(r) b = Add(r, r) y = Add(a, b) }"
    )
    grads = gr.differentiate(model, wrt=["x"], of="y", relu="guided")
    x = np.array([[1.0, -1.0]], np.float32)
    out = run(grads, {"x": x, "cotangent": np.ones_like(x)})
    np.testing.assert_array_equal(out["grad/x"], [[1.0, 0.0]])


@pytest.mark.parametrize("batch", [1, 3])
def test_broadcasting_against_a_symbolic_batch(batch: int) -> None:
    model = parse(
        "g (float[N, 3] x, float[M, 3] z) => (float[K, 3] y) { p = Mul(x, z)  y = Mul(p, p) }"
    )
    feeds = {"x": numbers(1, 3), "z": numbers(batch, 3, seed=1)}
    assert gradient(model, feeds).shape == (1, 3)
    assert gradient(model, feeds, wrt="z").shape == (batch, 3)


def test_split_with_a_dead_first_output() -> None:
    model = parse(
        "g (float[N, 4] x) => (float[N, 2] y) {"
        " a, b = Split <axis = 1, num_outputs = 2> (x) y = Mul(b, b) }"
    )
    value = gradient(model, {"x": numbers(2, 4)})
    assert not value[:, :2].any()
    assert value[:, 2:].all()


def test_an_unsorted_node_list() -> None:
    model = parse("g (float[N, 2] x) => (float[N, 2] y) { a = Mul(x, x) b = Neg(a) y = Mul(b, x) }")
    expected = gradient(model, {"x": numbers(2, 2)})
    nodes = list(model.graph.node)[::-1]
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(model)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    grads = gr.differentiate(shuffled, wrt=["x"], of="y")
    feeds = {"x": numbers(2, 2), "cotangent": np.ones((2, 2), np.float32)}
    np.testing.assert_array_equal(run(grads, feeds)["grad/x"], expected)


def test_a_weight_computed_from_the_picture_is_an_error_not_a_lost_term() -> None:
    model = parse(
        "g (float[1, 2, 3, 3] x) => (float[1, 1, 1, 1] y) {"
        " w = Sigmoid(x)  y = Conv <kernel_shape = [3, 3]> (x, w) }"
    )
    with pytest.raises(gr.RuleError, match=r"Conv .*input 1 \('w'\)"):
        gr.differentiate(model, wrt=["x"], of="y")


def test_a_clip_bound_computed_from_the_picture_is_an_error() -> None:
    model = parse(
        "g (float[N] x) => (float[N] y) { s = ReduceMean <keepdims = 0> (x)  y = Clip(x, s) }"
    )
    with pytest.raises(gr.RuleError, match="Clip"):
        gr.differentiate(model, wrt=["x"], of="y")


def test_subgraph_captures_are_inputs() -> None:
    """If reads x through its branches only: a sweep that looks at node.input loses the term."""
    branch = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["t"])],
        "branch",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["N", 2])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["s"], then_branch=branch, else_branch=branch),
            helper.make_node("Add", ["s", "x"], ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(gr.UnsupportedControlFlowError, match="If"):
        gr.differentiate(model, wrt=["x"], of="y")


def test_an_empty_optional_input() -> None:
    model = parse(
        "g (float[N, 2] x) => (float[N, 2] y) {"
        " top = Constant <value_float = 0.5> () c = Clip(x, , top)  y = Mul(c, c) }"
    )
    gradient(model, {"x": numbers(3, 2)})


def test_size_arithmetic_needs_no_rule() -> None:
    """Shape -> Cast -> Floor -> Reshape, and a custom operator beside the path."""
    model = parse(
        "g (float[N, 2, 3] x) => (float[K, L] y, float[P] z) {"
        " zero = Constant <value_ints = [0]> () rest = Constant <value_ints = [-1]> ()"
        " s = Shape(x) f = Cast <to = 1> (s) h = Floor(f) i = Cast <to = 7> (h)"
        " n = Gather <axis = 0> (i, zero) t = Concat <axis = 0> (n, rest)"
        " r = Reshape(x, t) y = Mul(r, r)"
        " k = NonZero(x) flat = Reshape(k, rest) z = Cast <to = 1> (flat) }"
    )
    x = numbers(2, 2, 3)
    np.testing.assert_allclose(gradient(model, {"x": x}), 2 * x, rtol=1e-5)


def test_no_differentiable_path_is_an_error_never_zeros() -> None:
    model = parse(
        "g (float[N, 2] x) => (float[N, 2] y) {"
        " i = Cast <to = 7> (x) f = Cast <to = 1> (i) y = Mul(f, f) }"
    )
    with pytest.raises(gr.NoGradientPathError, match="'x'"):
        gr.differentiate(model, wrt=["x"], of="y")


def test_wrt_behind_of_is_an_error() -> None:
    model = parse("g (float[N, 2] x) => (float[N, 2] y) { a = Mul(x, x) y = Mul(a, a) }")
    with pytest.raises(gr.NoGradientPathError, match="'y'"):
        gr.differentiate(model, wrt=["y"], of="a")


def test_of_and_wrt_may_be_the_same_and_both_graph_outputs() -> None:
    model = parse(
        "g (float[N, 2] x) => (float[N, 2] a, float[N, 2] y) { a = Mul(x, x) y = Mul(a, a) }"
    )
    grads = gr.differentiate(model, wrt=["y", "a", "x"], of="y")
    x = numbers(2, 2)
    out = run(grads, {"x": x, "cotangent": np.ones_like(x)})
    np.testing.assert_array_equal(out["grad/y"], np.ones_like(x))
    np.testing.assert_allclose(out["grad/a"], 2 * x**2, rtol=1e-5)
    np.testing.assert_allclose(out["grad/x"], 4 * x**3, rtol=1e-5)


def test_a_second_prefix_adds_a_second_backward_over_the_same_forward() -> None:
    model = parse("g (float[N, 2] x) => (float[N, 2] y) { r = Relu(x) y = Mul(r, r) }")
    once = gr.differentiate(model, wrt=["x"], of="y")
    twice = gr.differentiate(once, wrt=["x"], of="y", relu="deconvnet", prefix="dec")
    forward = sum(not n.metadata_props for n in twice.graph.node)
    assert forward == 2
    x = np.array([[1.0, -1.0]], np.float32)
    ct = np.array([[1.0, -1.0]], np.float32)
    out = run(twice, {"x": x, "cotangent": ct, "dec/cotangent": ct})
    np.testing.assert_array_equal(out["grad/x"], run(once, {"x": x, "cotangent": ct})["grad/x"])
    with pytest.raises(gr.NameClashError, match="dec"):
        gr.differentiate(twice, wrt=["x"], of="y", prefix="dec")


def test_unnamed_nodes_get_distinct_backward_names() -> None:
    model = parse("g (float[N, 2] x) => (float[N, 2] y) { a = Relu(x) b = Relu(a) y = Relu(b) }")
    grads = gr.differentiate(model, wrt=["x"], of="y")
    names = [n.name for n in grads.graph.node if n.metadata_props]
    assert len(names) == len(set(names))
    assert all(name.startswith(("bwd/grad/", "grad/")) for name in names)


def test_cotangents_of_constants_are_not_computed() -> None:
    """y = x·w + b: one Mul back, no reductions for w and b."""
    model = parse(
        "g (float[N, 2] x) => (float[N, 2] y)"
        " <float[2] w = {1.0, 2.0}, float[2] b = {3.0, 4.0}> { p = Mul(x, w) y = Add(p, b) }"
    )
    grads = gr.differentiate(model, wrt=["x"], of="y")
    added = [n.op_type for n in grads.graph.node if n.metadata_props]
    assert sorted(added) == ["Identity", "Mul"]


def test_positive_clamps_what_other_activations_send_back() -> None:
    model = parse("g (float[N, 2] x) => (float[N, 2] y) { y = Tanh(x) }")
    grads = gr.differentiate(model, wrt=["x"], of="y", other_activations="positive")
    x, ct = np.zeros((1, 2), np.float32), np.array([[2.0, -2.0]], np.float32)
    np.testing.assert_array_equal(run(grads, {"x": x, "cotangent": ct})["grad/x"], [[2.0, 0.0]])


def test_a_users_rule_wins() -> None:
    def twice_relu(op, node, cts):
        return [op.Mul(cts[0], 2.0)]

    model = parse("g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }")
    grads = gr.differentiate(
        model, wrt=["x"], of="y", rules=gr.DEFAULT_RULES.override(Relu=twice_relu)
    )
    x = numbers(1, 2)
    np.testing.assert_array_equal(
        run(grads, {"x": x, "cotangent": np.ones_like(x)})["grad/x"], np.full_like(x, 2)
    )


def test_the_callers_model_is_not_touched() -> None:
    model = parse("g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }")
    before = model.SerializeToString(deterministic=True)
    gr.differentiate(model, wrt=["x"], of="y")
    assert model.SerializeToString(deterministic=True) == before
