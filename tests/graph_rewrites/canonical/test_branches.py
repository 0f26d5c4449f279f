"""An If whose condition is known becomes the branch that it takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import graph_rewrites as gr
from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.errors import UnsupportedControlFlowError
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(6).bit_generator.state


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def check(model: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    """The canonical form has no If and the same outputs."""
    onnx.checker.check_model(model)
    canonical = canonicalize(model)
    assert "If" not in operators(canonical)
    names = [value.name for value in model.graph.output]
    expected = session(model).run(names, {"x": x})
    got = run(canonical, {"x": x})
    for name, value in zip(names, expected, strict=True):
        np.testing.assert_allclose(got[name], value, rtol=1e-6)
    return canonical


BRANCHES = """
    then_branch = t () => (float[N, 4] a) { m = Mul (r, w)  a = Add (m, r) },
    else_branch = e () => (float[N, 4] a) { m = Neg (r)  a = Abs (m) }
"""


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("opset", [11, 13, 18, 22])
def test_a_constant_condition(condition: bool, shape: tuple[int, ...], opset: int) -> None:
    text = f"""g (float[N, 4] x) => (float[N, 4] y) {{
        r = Relu (x)
        i = If (c) <{BRANCHES}>
        y = Neg (i)
    }}"""
    constants = {"c": np.full(shape, condition), "w": RNG.standard_normal(4).astype(np.float32)}
    canonical = check(graph_of(text, opset, **constants), RNG.standard_normal((3, 4)).astype("f"))
    inside = {"Mul": 1, "Add": 1, "Neg": 1} if condition else {"Neg": 2, "Abs": 1}
    assert operators(canonical) == {"Relu": 1, **inside}
    assert canonical_facts(canonical)["rewritten"] == []
    kept = {tensor.name for tensor in canonical.graph.initializer}
    assert kept == ({"w"} if condition else set())


def torchscript_squeeze(opset: int, channels: str = "8") -> onnx.ModelProto:
    """What PyTorch's older exporter writes for `x.squeeze(2)`: squeeze if that size is 1."""
    axes = "<axes = [2]> (p)" if opset < 13 else "(p, axes)"
    text = f"""g (float[N, {channels}, 6, 6] x) => (y) {{
        p = ReduceMax <axes = [2], keepdims = 1> (x)
        s = Shape (p)
        d = Gather <axis = 0> (s, two)
        c = Equal (d, one)
        y = If (c) <
            then_branch = t () => (float q) {{ q = Squeeze {axes} }},
            else_branch = e () => (float q) {{ q = Identity (p) }}
        >
    }}"""
    constants = {
        "two": np.array(2, np.int64),
        "one": np.array(1, np.int64),
        "axes": np.array([2], np.int64),
    }
    model = graph_of(text, opset, **constants)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model.graph.output[0].CopyFrom(output)
    for attribute in model.graph.node[-1].attribute:  # neither branch says its shape
        attribute.g.output[0].CopyFrom(helper.make_tensor_value_info("q", TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_a_condition_on_sizes(opset: int) -> None:
    model = torchscript_squeeze(opset)
    x = RNG.standard_normal((2, 8, 6, 6)).astype(np.float32)
    (expected,) = session(model).run(["y"], {"x": x})
    canonical = canonicalize(model)
    assert operators(canonical) == {"ReduceMax": 1, "Squeeze": 1}
    (got,) = session(canonical).run(["y"], {"x": x})
    assert got.shape == (2, 8, 6)
    np.testing.assert_array_equal(got, expected)


def test_a_condition_on_a_size_behind_pads_that_arithmetic_makes() -> None:
    """As PyTorch's older exporter writes LocalResponseNorm: F.pad, a pool, squeeze."""
    text = """g (float[N, 8, 6, 6] x) => (y) {
        z = ConstantOfShape <value = int64[1] {0}> (two)
        pads = Concat <axis = 0> (front, z)
        r = Unsqueeze (x, axes)
        p = Pad (r, pads)
        q = AveragePool <kernel_shape = [3, 1, 1], count_include_pad = 1> (p)
        s = Shape (q)
        d = Gather <axis = 0> (s, one)
        c = Equal (d, one)
        y = If (c) <
            then_branch = t () => (float v) { v = Squeeze (q, axes) },
            else_branch = e () => (float v) { v = Identity (q) }
        >
    }"""
    numbers = {"two": [2], "front": [0, 0, 1, 0, 0, 0, 0, 1], "axes": [1], "one": 1}
    model = graph_of(text, **{name: np.array(value) for name, value in numbers.items()})
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 6, 6])
    model.graph.output[0].CopyFrom(output)
    canonical = check(model, RNG.standard_normal((2, 8, 6, 6)).astype(np.float32))
    assert canonical_facts(canonical)["rewritten"] == []


def test_a_fixed_batch_is_freed_behind_a_branch_that_was_resolved() -> None:
    text = f"""g (float[1, 4] x) => (float[1, 4] y) {{
        r = Relu (x)
        s = Shape (r)
        d = Gather <axis = 0> (s, zero)
        c = Equal (d, one)
        y = If (c) <{BRANCHES.replace("N, 4", "1, 4")}>
    }}"""
    constants = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64)}
    model = graph_of(text, w=RNG.standard_normal(4).astype(np.float32), **constants)
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    canonical = check(model, x[:1])
    assert canonical_facts(canonical)["batch"] == "free"
    apart = np.concatenate([run(model, {"x": row[None]})["y"] for row in x])
    np.testing.assert_allclose(run(canonical, {"x": x})["y"], apart, rtol=1e-6)


def test_a_condition_on_the_free_batch_stays_and_is_refused_where_it_matters() -> None:
    text = f"""g (float[N, 4] x) => (float[N, 4] y) {{
        r = Relu (x)
        s = Shape (r)
        d = Gather <axis = 0> (s, zero)
        c = Equal (d, one)
        y = If (c) <{BRANCHES}>
    }}"""
    constants = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64)}
    model = graph_of(text, w=RNG.standard_normal(4).astype(np.float32), **constants)
    assert operators(canonicalize(model))["If"] == 1
    with pytest.raises(UnsupportedControlFlowError, match="If"):
        gr.differentiate(model, wrt=["x"], of="y")
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    grads = gr.differentiate(model, wrt=["x"], of="r")  # the If lies behind
    got = run(grads, {"x": x, "cotangent": np.ones((2, 4), np.float32)})["grad/x"]
    np.testing.assert_array_equal(got, (x > 0).astype(np.float32))


def test_nested_and_dependent_branches_with_the_same_names() -> None:
    """The second condition asks for a size behind the first; all use the same inner names."""
    text = """g (float[N, 4, 1, 1] x) => (float[N, 4] y) {
        a = If (yes) <
            then_branch = t () => (float q) {
                k = Constant <value_float = 2.0> ()
                m = Mul (x, k)
                n = If (no) <
                    then_branch = tt () => (float q2) { l = Neg (m) q2 = Neg (l) },
                    else_branch = te () => (float q2) { l = Mul (m, k) q2 = Abs (l) }
                >
                q = Squeeze (n, axes)
            },
            else_branch = e () => (float q) { m = Identity (x) q = Neg (m) }
        >
        s = Shape (a)
        r = Shape (s)
        one = Constant <value_int = 1> ()
        two = Mul (one, r)
        c = Equal (two, rank)
        m_0 = Neg (a)
        y = If (c) <
            then_branch = t2 () => (float q) { m = Exp (m_0) q = Neg (m) },
            else_branch = e2 () => (float q) { m = Log (m_0) q = Neg (m) }
        >
    }"""
    constants = {
        "yes": np.array(True),
        "no": np.array(False),
        "axes": np.array([2, 3], np.int64),
        "rank": np.array([2], np.int64),
    }
    model = graph_of(text, **constants)
    canonical = check(model, RNG.standard_normal((3, 4, 1, 1)).astype(np.float32))
    outputs = [name for node in canonical.graph.node for name in node.output]
    assert len(outputs) == len(set(outputs))
    assert {"m", "l"} <= set(outputs)  # free names are kept
    assert operators(canonical)["Exp"] == 1


def test_names_that_another_subgraph_uses_are_left_to_it() -> None:
    """A moved tensor must not shadow one in a branch that stays."""
    text = f"""g (float[N, 4] x, bool c) => (float[N, 4] y) {{
        r = Relu (x)
        first = If (known) <{BRANCHES}>
        second = If (c) <{BRANCHES}>
        y = Add (first, second)
    }}"""
    constants = {"known": np.array(True), "w": RNG.standard_normal(4).astype(np.float32)}
    model = graph_of(text, **constants)
    canonical = canonicalize(model)
    onnx.checker.check_model(canonical, full_check=True)
    assert operators(canonical)["If"] == 1
    moved = [n.output[0] for n in canonical.graph.node if n.op_type == "Mul"]
    assert moved == ["first/m"]
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    for c in (True, False):
        feeds = {"x": x, "c": np.array(c)}
        np.testing.assert_array_equal(run(canonical, feeds)["y"], run(model, feeds)["y"])


def test_a_branch_that_stays_inside_one_that_moves_follows_its_captures() -> None:
    text = """g (float[N, 4] x, bool c, float[4] m) => (float[N, 4] y) {
        y = If (known) <
            then_branch = t () => (float[N, 4] q) {
                h = Mul (x, x)
                q = If (c) <
                    then_branch = tt () => (float[N, 4] q2) { q2 = Add (h, m) },
                    else_branch = te () => (float[N, 4] q2) { q2 = Sub (h, m) }
                >
            },
            else_branch = e () => (float[N, 4] q) { q = Identity (x) }
        >
        z = Mul (y, m)
        h_other = Neg (z)
    }"""
    model = graph_of(text.replace("h_other", "g0"), known=np.array(True))
    for node in model.graph.node:  # force a clash: the outer graph has an `h` too
        node.output[:] = ["h" if name == "g0" else name for name in node.output]
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 4]))
    inner = model.graph.node[0].attribute[0].g
    inner_names = [name for node in inner.node for name in node.output]
    assert "h" in inner_names
    canonical = canonicalize(model)
    assert operators(canonical)["If"] == 1
    x, m = RNG.standard_normal((2, 4)).astype("f"), RNG.standard_normal(4).astype("f")
    for c in (True, False):
        got = run(canonical, {"x": x, "c": np.array(c), "m": m})
        expected = x * x + m if c else x * x - m
        np.testing.assert_allclose(got["y"], expected, rtol=1e-6)
        np.testing.assert_allclose(got["h"], -expected * m, rtol=1e-6)


def test_stored_tensors_and_outer_results_of_a_branch() -> None:
    """One output is a weight of the branch, one a tensor of the outer graph."""
    branch = parser.parse_graph("t () => (float[4] a, float[N, 4] b) { b = Identity (x) }")
    branch.node[0].input[0] = "r"
    branch.initializer.append(numpy_helper.from_array(np.arange(4, dtype=np.float32), "a"))
    other = onnx.GraphProto()
    other.CopyFrom(branch)
    model = graph_of(
        "g (float[N, 4] x) => (float[4] p, float[N, 4] q) { r = Relu (x) }", c=np.array(False)
    )
    node = helper.make_node("If", ["c"], ["p", "q"], then_branch=other, else_branch=branch)
    model.graph.node.append(node)
    check(model, RNG.standard_normal((2, 4)).astype(np.float32))


def test_what_a_branch_holds_becomes_canonical_too() -> None:
    """Dropout, automatic padding and the runtime's own operators, moved out of a branch."""
    text = """g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {
        y = If (c) <
            then_branch = t () => (float[N, 4, 4, 4] q) {
                m = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)
                d = Dropout (m)
                q = com.microsoft.QuickGelu <alpha = 1.0> (d)
            },
            else_branch = e () => (float[N, 4, 4, 4] q) { q = Conv (x, w) }
        >
    }"""
    w = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    model = graph_of(text, c=np.array(True), w=w)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    canonical = check(model, RNG.standard_normal((2, 3, 8, 8)).astype(np.float32))
    assert operators(canonical) == {"Conv": 1, "Sigmoid": 1, "Mul": 1}
