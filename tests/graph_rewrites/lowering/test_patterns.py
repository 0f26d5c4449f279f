"""Each pattern finds its case, and changes nothing but the time."""

from __future__ import annotations

import numpy as np
import pytest

import graph_rewrites as gr
from graph_rewrites.graph import Graph
from graph_rewrites.lowering import PROVIDERS
from graph_rewrites.lowering.cpu import CPU
from graph_rewrites.lowering.pattern import Pattern, apply, pattern
from graph_rewrites.lowering.specialization import specialize
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import graph_of

from .cases import CASES, Case

ROUNDING = 1e-5


def relative(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def shapes(case: Case, batch: int) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in case.feeds(batch).items()}


@pytest.mark.parametrize("name", CASES)
def test_a_pattern_finds_its_case(name: str) -> None:
    case = CASES[name]
    graph = Graph(gr.differentiate(case.model(), "x", of="y"))
    specialize(graph, shapes(case, 2))
    assert apply(graph, CPU)[case.pattern]


def test_every_pattern_has_a_case() -> None:
    every = {each.name for table in PROVIDERS.values() for each in table}
    apart = {"chosen_row", "mean_of_unpooled", "mean_in_weight"}  # next, test_maps
    assert every == {case.pattern for case in CASES.values()} | apart


@pytest.mark.parametrize(
    "dense", ["y = Gemm(f, w)", "y = Gemm<transB=1>(f, u)", "y = MatMul(f, w)"]
)
def test_one_class_takes_one_row_of_the_dense_weight(dense: str) -> None:
    body = f"p = MaxPool<kernel_shape=[1,1]>(x) f = Flatten(p) {dense}"
    weight = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    weights = {"u": weight.T.copy()} if "(f, u)" in dense else {"w": weight}
    model = graph_of(f"net (float[N,3,4,4] x) => (float[N,5] y) {{ {body} }}", **weights)
    built = gr.explanation_model(model, "gradient")
    lowered = gr.lower(built, "cpu", {"x": (4, 3, 4, 4), "target": (4,)})
    products = [n.op_type for n in lowered.graph.node if n.op_type in ("Gemm", "MatMul")]
    turned = dense == "y = Gemm(f, w)"  # its backward turns the weight in the product itself
    assert len(products) == 1 + turned
    feeds = {"x": np.zeros((4, 3, 4, 4), np.float32), "target": np.array([-1, 4, 2, 5])}
    found, expected = run(lowered, feeds)["map/gradient"], run(built, feeds)["map/gradient"]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[3]).all()
    np.testing.assert_array_equal(found[1].ravel(), weight[:, 4])


@pytest.mark.parametrize("relu", ["gradient", "guided", "deconvnet"])
@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("name", CASES)
def test_lowered_equals_portable(name: str, provider: str, relu: str) -> None:
    case = CASES[name]
    grads = gr.differentiate(case.model(), "x", of="y", relu=relu)
    for batch in (1, 3):
        feeds = case.feeds(batch)
        expected = run(grads, feeds, optimised=False)
        for fixed in (None, shapes(case, batch)):
            lowered = gr.lower(grads, provider, fixed)
            assert {node.domain for node in lowered.graph.node} == {""}
            for optimised in (False, True):
                found = run(lowered, feeds, optimised=optimised)
                for output, value in expected.items():
                    assert found[output].shape == value.shape
                    assert relative(found[output], value) < ROUNDING


@pytest.mark.parametrize("value", [0.0, 1.2e-38, 6.0, np.nextafter(np.float32(6), 0), 7.0, -1.0])
def test_steps_are_exact_at_their_bounds(value: float) -> None:
    """HardSigmoid does what the comparisons do, next to 0 and to the bound of a ReLU6."""
    case = Case(
        "step_mask",
        "zero = Constant<value_float=0.0>() six = Constant<value_float=6.0>()"
        " y = Clip(x, zero, six)",
        (16, 2, 2),
        (16, 2, 2),
        {},
    )
    grads = gr.differentiate(case.model(), "x", of="y")
    feeds = {
        "x": np.full((1, 16, 2, 2), value, np.float32),
        "cotangent": case.feeds(1)["cotangent"],
    }
    lowered = gr.lower(grads, "cpu", shapes(case, 1))
    assert "Where" not in {node.op_type for node in lowered.graph.node}
    np.testing.assert_array_equal(run(lowered, feeds)["grad/x"], run(grads, feeds)["grad/x"])


def test_the_first_of_equal_maxima_has_the_cotangent() -> None:
    case = CASES["pool without overlap"]
    grads = gr.differentiate(case.model(), "r", of="y")
    feeds = case.feeds(1)
    feeds["x"][:] = 1.0
    lowered = run(gr.lower(grads, "cpu", shapes(case, 1)), feeds)["grad/r"]
    np.testing.assert_array_equal(lowered, run(grads, feeds)["grad/r"])
    assert not lowered[:, :, 3:6:2, 2:6].any()  # nothing but ties, away from the border


def test_a_pattern_that_is_wrong_is_found() -> None:
    """The comparison above can fail."""

    @pattern("Where")
    def no_mask(op, node):
        return op.Mul(node.input(1), 1.0)

    case = CASES["ReLU"]
    graph = Graph(gr.differentiate(case.model(), "x", of="y"))
    wrong: tuple[Pattern, ...] = (no_mask,)
    assert apply(graph, wrong) == {"no_mask": 1}
    feeds = case.feeds(1)
    portable = run(gr.differentiate(case.model(), "x", of="y"), feeds)["grad/x"]
    assert relative(run(graph.export(), feeds)["grad/x"], portable) > 0.1
