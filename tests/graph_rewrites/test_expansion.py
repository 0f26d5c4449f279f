"""Operators without a rule: their bodies are differentiated, and the forward graph stays."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graph_rewrites as gr
from graph_rewrites.canonical import canonicalize
from graph_rewrites.canonical.decompose import decompose
from graph_rewrites.canonical.recurrent import SCANS
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import MissingRuleError, RuleError
from graph_rewrites.expansion import expands, expansion
from graph_rewrites.graph import Graph
from graph_rewrites.node import Node
from graph_rewrites.operator_model import nondifferentiable
from graph_rewrites.reverse import Sweep
from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.rules.table import Cotangents, Rule, RuleTable
from graph_rewrites.sharp import directional_error
from graph_rewrites.testing import between
from tests.graph_rewrites.canonical.test_recurrent import GATES, recurrent
from tests.graph_rewrites.rules.harness import Case, Fed, collect
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import graph_of

WRONG_BODIES = {
    "Celu-alpha=-0.8": "the kernel's is another function below 0",
    "Clip-no_upper_bound": "an omitted bound has no type",
    "Clip-no_lower_bound": "an omitted bound has no type",
}
"""Where ONNX's own body cannot stand in for the operator."""


def without(*op_types: str) -> RuleTable:
    kept = {name: rule for name, rule in DEFAULT_RULES.rules.items() if name not in op_types}
    return RuleTable(MappingProxyType(kept))


def by_its_body(op_type: str) -> Rule:
    """The rule that `op_type` gets in a table without one."""

    def vjp(op: Emitter, node: Node, cts: Cotangents) -> Cotangents:
        sweep = Sweep(op.graph, "grad", rules=without(op_type))
        differentiable = (x for i, x in enumerate(node.inputs) if not nondifferentiable(node, i))
        sweep.active = frozenset(x for x in differentiable if op.graph.is_float(x))
        rule = expansion(sweep, node)
        assert rule is not None and rule.fn is not None
        return rule.fn(op, node, cts)

    return Rule(op_type, vjp)


def _two_of_each() -> list[Case]:
    """Two rows of the case tables for every operator that has both a rule and a body."""
    chosen: dict[str, list[Case]] = {}
    for case in collect():
        rule = DEFAULT_RULES.get(case.op)
        if rule and not rule.is_zero and expands(case.op, case.opset) and case.batched:
            chosen.setdefault(case.op, []).append(case)
    return [
        case for cases in chosen.values() for case in cases[:2] if str(case) not in WRONG_BODIES
    ]


@pytest.mark.parametrize("case", _two_of_each(), ids=str)
def test_the_body_has_the_gradient_of_the_rule(case: Case) -> None:
    case.check(by_its_body(case.op), 3, optimised=True)


LABELS = np.array([[0, 1], [2, 3], [4, 4]])
POSITIVE = between(0.1, 1.0)
ONLY_BODIES = [
    Case("CenterCropPad", [("N", 3, 6, 8), np.array([4, 4])], {"axes": [-2, -1]}, "linear"),
    Case("CenterCropPad", [("N", 3, 6, 8), np.array([9, 5])], {"axes": [2, 3]}, "linear"),
    *(
        Case(
            f"{name}Loss", [(3, 5, 2), Fed(LABELS, dtype=np.int64)], {"reduction": reduction},
        )
        for name in ("NegativeLogLikelihood", "SoftmaxCrossEntropy")
        for reduction in ("none", "mean", "sum")
    ),
    Case(
        "NegativeLogLikelihoodLoss",
        [(3, 5, 2), Fed(LABELS, dtype=np.int64), np.linspace(0.5, 2, 5).astype(np.float32)],
        {"ignore_index": 4},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", ONLY_BODIES, ids=str)
def test_operators_that_have_no_rule(case: Case) -> None:
    assert DEFAULT_RULES.get(case.op) is None
    case.check(by_its_body(case.op), 3, optimised=True)


def test_every_function_of_the_standard_has_a_rule_a_body_or_a_zero() -> None:
    """What no table row tries is here by name."""
    tried = {case.op for case in ONLY_BODIES} | set(DEFAULT_RULES.rules)
    refused = {"SequenceMap"}  # of a sequence of tensors, by a Loop
    integer = {"BlackmanWindow", "HammingWindow", "HannWindow", "GreaterOrEqual", "LessOrEqual"}
    taken_apart = {"CastLike", "GroupNormalization", "MeanVarianceNormalization"}
    functions = {s.name for s in onnx.defs.get_all_schemas() if expands(s.name, 21)}
    assert functions - tried - integer - taken_apart - refused - set(GATES) == set()


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op_type", GATES)
def test_recurrent_gradients(op_type: str, direction: str) -> None:
    model, feeds = recurrent(op_type, "Bhc"[: 3 if op_type == "LSTM" else 2], direction=direction)
    for of, wrt in (("Y", "X"), ("Y_h", "R"), ("Y_h", "X"), ("Y", "h")):
        grads = gr.differentiate(canonicalize(model, batch="keep"), wrt=wrt, of=of)
        assert directional_error(grads, feeds, wrt, of=of, directions=1) < 1e-6, (of, wrt)


@pytest.mark.parametrize("op_type", GATES)
def test_recurrent_gradients_of_sequences_of_several_lengths(op_type: str) -> None:
    """The reference knows no lengths but in a Scan."""
    model, feeds = recurrent(op_type, "B", lengths=[2, 4], direction="bidirectional", clip=0.8)
    grads = gr.differentiate(canonicalize(model, batch="keep"), wrt=["X", "W"], of="Y")
    forward = Graph(grads)
    decompose(forward, SCANS)
    for wrt in ("X", "W"):
        assert directional_error(forward.export(), feeds, wrt, of="Y", directions=1) < 1e-6
    ct = np.random.default_rng(3).standard_normal((4, 2, 2, 5)).astype(np.float32)
    dx = run(grads, {**feeds, "cotangent": ct})["grad/X"]
    assert not dx[2:, 0].any()  # behind the end of the first sequence
    assert dx[2:, 1].any()


def test_several_outputs_at_once() -> None:
    """Y and the last state, joined behind the cell."""
    rng = np.random.default_rng(0)
    model = graph_of(
        """g (float[3, 2, 4] x) => (float[2, 5] y) {
            s, h = GRU<hidden_size = 5>(x, w, r)
            m = ReduceMean<keepdims = 0>(s, axes)
            last = Squeeze(h, front)
            y = Add(m, last)
        }""",
        w=rng.standard_normal((1, 15, 4)).astype(np.float32),
        r=rng.standard_normal((1, 15, 5)).astype(np.float32),
        axes=np.array([0, 1]),
        front=np.array([0]),
    )
    grads = gr.differentiate(model, wrt="x", of="y")
    x = rng.standard_normal((3, 2, 4)).astype(np.float32)
    assert directional_error(grads, {"x": x}, "x", of="y") < 1e-6


NET = """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    a = Conv(x, w)
    b = Mish(a)
    p = GlobalAveragePool(b)
    f = Flatten(p)
    y = MatMul(f, d)
}"""


def net(activation: str = "Mish") -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    w, d = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3, 3, 3), (5, 4)))
    return graph_of(NET.replace("Mish", activation), w=w, d=d)


def feeds(batch: int = 2, **more: Any) -> dict[str, np.ndarray]:
    x = np.random.default_rng(2).standard_normal((batch, 3, 8, 8)).astype(np.float32)
    return {"x": x, **more}


def test_the_forward_graph_stays_and_the_body_is_stamped() -> None:
    grads = gr.differentiate(net(), wrt="x", rules=without("Mish"))
    ours = [n for n in grads.graph.node if not n.metadata_props]
    assert [n.op_type for n in ours] == ["Conv", "Mish", "GlobalAveragePool", "Flatten", "MatMul"]
    body = [n for n in grads.graph.node if n.output[0].startswith("bwd/grad/b/")]
    assert {"Softplus", "Tanh"} <= {n.op_type for n in body}
    assert [a.op_type for a in gr.coverage(grads).activations] == ["Mish"]
    assert gr.feature_maps(grads) == gr.feature_maps(net())
    ct = np.ones((2, 4), np.float32)
    expected = run(gr.differentiate(net(), wrt="x"), feeds(cotangent=ct))
    actual = run(grads, feeds(cotangent=ct))
    np.testing.assert_allclose(actual["grad/x"], expected["grad/x"], rtol=1e-5, atol=1e-6)


def test_no_weight_is_copied() -> None:
    model, _ = recurrent("LSTM", "B")
    for name in ("W", "R"):
        (value,) = (v for v in model.graph.input if v.name == name)
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        model.graph.initializer.append(
            numpy_helper.from_array(np.ones(shape, np.float32), value.name)
        )
        model.graph.input.remove(value)
    grads = gr.differentiate(canonicalize(model, batch="keep"), wrt="X", of="Y")
    before, after = (sum(t.ByteSize() for t in m.graph.initializer) for m in (model, grads))
    assert after < before + 500


def test_an_expanded_activation_obeys_the_policy() -> None:
    table = without("Mish")
    kinds = {p: gr.differentiate(net(), "x", other_activations=p, rules=table)
             for p in ("gradient", "positive")}  # fmt: skip
    assert [gr.coverage(kinds[p]).activations[0].rule for p in kinds] == ["gradient", "positive"]
    with pytest.raises(RuleError, match="strict"):
        gr.differentiate(net(), "x", other_activations="strict", rules=table)


def test_one_tensor_in_two_places() -> None:
    """PRelu(x, x): a cotangent for each of them."""
    model = graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = PRelu(x, x) }")
    grads = gr.differentiate(model, wrt="x", of="y", rules=without("PRelu"))
    x = np.array([[-2.0, -0.5, 0.5, 3.0]], np.float32)
    (actual,) = run(grads, {"x": x, "cotangent": np.ones_like(x)})["grad/x"]
    np.testing.assert_allclose(actual, [-4.0, -1.0, 1.0, 1.0])


def test_several_targets_at_once() -> None:
    given = feeds(target=np.array([[0, 3], [2, 1]], np.int64))
    ends = [
        run(gr.explanation_model(net(), ("gradient", "grad_cam"), targets=2, rules=rules), given)
        for rules in (DEFAULT_RULES, without("Mish"))
    ]
    assert ends[0]["map/gradient"].shape == (2, 2, 3, 8, 8)
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, rtol=1e-4, atol=1e-6)


def test_what_the_body_lacks_is_named() -> None:
    match = r"Mish \(output 'b', opset 18\) has no rule, .*Tanh.*override\(Mish=my_vjp\)"
    with pytest.raises(MissingRuleError, match=match):
        gr.differentiate(net(), wrt="x", rules=without("Mish", "Tanh"))


def test_a_body_within_a_body() -> None:
    """HardSwish is x · HardSigmoid(x), and that a Min of a Max."""
    grads = gr.differentiate(net("HardSwish"), wrt="x", rules=without("HardSwish", "HardSigmoid"))
    assert directional_error(grads, feeds(1), "x") < 1e-6


@pytest.mark.parametrize("op_type", GATES)
def test_an_open_sequence(op_type: str) -> None:
    """The backward of one file fits every length; its nodes are as many as for any other."""
    counts = set()
    for steps in (4, "L"):
        model, feeds = recurrent(op_type, "B", steps=steps, direction="bidirectional")
        grads = gr.differentiate(canonicalize(model, batch="keep"), wrt="X", of="Y")
        counts.add(len(grads.graph.node))
        for length in (4,) if steps == 4 else (1, 9):
            feeds["X"] = np.resize(feeds["X"], (length, *feeds["X"].shape[1:]))
            assert directional_error(grads, feeds, "X", of="Y", directions=1) < 1e-6
    assert len(counts) == 1


@pytest.mark.parametrize("op_type", GATES)
def test_a_recurrence_behind_convolutions(op_type: str) -> None:
    """The columns of a picture are its steps, as where text is read."""
    rng = np.random.default_rng(4)
    gates, size = GATES[op_type], 6
    model = graph_of(
        f"""g (float[N, 3, 8, 8] x) => (float[N, 4] y) {{
            a = Conv<strides = [2, 2]>(x, w)
            m = ReduceMean<keepdims = 0>(a, height)
            s = Transpose<perm = [2, 0, 1]>(m)
            all, h = {op_type}<hidden_size = {size}, direction = "bidirectional">(s, v, r)
            t = Transpose<perm = [1, 0, 2]>(h)
            f = Flatten(t)
            y = MatMul(f, d)
        }}""",
        w=rng.standard_normal((5, 3, 2, 2)).astype(np.float32),
        v=rng.standard_normal((2, gates * size, 5)).astype(np.float32),
        r=rng.standard_normal((2, gates * size, size)).astype(np.float32),
        d=rng.standard_normal((2 * size, 4)).astype(np.float32),
        height=np.array([2]),
    )
    grads = gr.differentiate(model, wrt="x")
    assert directional_error(grads, feeds(), "x") < 1e-6
    given = feeds(cotangent=rng.standard_normal((2, 4)).astype(np.float32))
    shapes = {name: value.shape for name, value in given.items()}
    expected, lowered = run(grads, given), run(gr.lower(grads, "cpu", shapes), given)
    np.testing.assert_allclose(lowered["grad/x"], expected["grad/x"], rtol=1e-4, atol=1e-6)
    with pytest.raises(gr.SeveralTargetsError, match="explain one target at a time"):
        gr.explanation_model(model, "gradient", targets=2)
