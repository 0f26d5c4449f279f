"""Random networks of 3 to 12 operators: is every gradient its own forward's, in every runtime?

The gate draws the same networks every time. New ones, as many as wanted, are drawn by

    ONNX_ANALYZER_NETWORKS=5000 pytest -m slow tests/graph_rewrites/test_random_graphs.py

A failure prints the smallest network that hypothesis has found, as ONNX text.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

import graph_rewrites as gr
from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.sharp import DoubleModel, spread
from graph_rewrites.testing import directional_error

from .random_graphs import OPSETS, STEPS, Network, network, networks
from .runtime import run

SHARP = 1e-6
"""Error of a gradient in float64, relative to ‖g‖/√n."""
LONGEST = 1e-3
"""The longest step of the differences: the gradients of small networks may be small, too."""
DISTANCES = (1e-4, 1e-5, 1e-6, 1e-7, LONGEST)
ROUNDING = 1e-5
"""Distance of two float32 evaluations of one well-conditioned gradient, relative to ‖g‖."""
ILL_CONDITIONED = 10
"""That distance where rounding shows: so many times what one rounding of each result does."""

NOT_DRAWN = {
    "AffineGrid": "onnx.reference has it in float32 only",
    "Bernoulli": "random",
    "DFT": "as AffineGrid",
    "DequantizeLinear": "quantised values jump in float32; see test_quantized.py",
    "DynamicQuantizeLinear": "straight-through, so no derivative of its forward",
    "MaxRoiPool": "onnx.reference does not have it",
    "Multinomial": "random",
    "NonMaxSuppression": "takes boxes",
    "QuantizeLinear": "as DequantizeLinear",
    "RandomNormalLike": "random",
    "RandomUniformLike": "random",
    "STFT": "as AffineGrid",
}
"""Operators of the rule table that no network here has, and why."""

check = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
gate = settings(check, derandomize=True, max_examples=60)
fuzzing = settings(check, max_examples=int(os.environ.get("ONNX_ANALYZER_NETWORKS", "2000")))
looking = settings(check, derandomize=True, max_examples=500, phases=[Phase.generate])


@given(networks())
@gate
def test_a_gradient_is_that_of_its_forward(drawn: Network) -> None:
    assert_explained(drawn)


@pytest.mark.slow
@given(networks())
@fuzzing
def test_the_same_of_new_networks(drawn: Network) -> None:
    assert_explained(drawn)


def assert_explained(drawn: Network, rules: gr.RuleTable = DEFAULT_RULES) -> None:
    grads = gr.differentiate(drawn.model, ["x", drawn.inner], of="y", rules=rules)
    for wrt in ("x", drawn.inner):
        error = directional_error(grads, {"x": drawn.x}, wrt, of="y", steps=DISTANCES)
        if error > SHARP:
            assert error <= SHARP + resolution(grads, drawn.x, wrt), f"{wrt} is off by {error:.1e}"
    y = run(drawn.model, {"x": drawn.x})["y"]
    ct = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    feeds = {"x": drawn.x, "cotangent": ct}
    plain, optimised = run(grads, feeds, optimised=False), run(grads, feeds)
    lowered = run(gr.lower(grads, "cpu", {k: v.shape for k, v in feeds.items()}), feeds)
    allowed = ROUNDING
    for name, value in plain.items():
        for other, how in ((optimised, "optimised"), (lowered, "lowered")):
            distance = relative(other[name], value)
            if distance > allowed:
                allowed = max(allowed, ILL_CONDITIONED * conditioning(grads, feeds, name))
            assert distance <= allowed, f"{name} differs by {distance:.1e} once {how}"
    assert relative(plain["y"], y) <= allowed, "the forward has changed"


def relative(value: np.ndarray, expected: np.ndarray) -> float:
    size = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(value.astype(np.float64) - expected)) / (size or 1.0)


def resolution(grads: onnx.ModelProto, x: np.ndarray, wrt: str) -> float:
    """What rounding alone does to differences of y, relative to ‖g‖/√n, where the check looked.

    Dead ReLUs and a softmax over one number leave no gradient but rounding, and no error is
    relative to that. Infinite where g is zero and y does not move, 0 where it does.
    """
    model, rng = DoubleModel(grads), np.random.default_rng(0)
    (t,) = model.values((wrt,), {"x": x})
    t = t + 0.01 * spread(t) * rng.standard_normal(t.shape)
    longest = LONGEST * spread(t)
    feeds = {"x": x, wrt: t}
    (y,) = model.values(("y",), feeds)
    ct = rng.standard_normal(y.shape)
    (g,) = model.values((f"grad/{wrt}",), {**feeds, "cotangent": ct})
    rounding = 4 * float(np.finfo(np.float64).eps * np.linalg.norm(ct) * np.linalg.norm(y))
    size = float(np.linalg.norm(g) / np.sqrt(g.size))
    if size:  # not zero, nor 1e-200 everywhere
        return rounding / longest / size
    step = longest * rng.standard_normal(t.shape)
    (moved,) = model.values(("y",), {**feeds, wrt: t + step})
    return float("inf") if abs(np.vdot(ct, moved - y)) <= rounding else 0.0


def conditioning(grads: onnx.ModelProto, feeds: Mapping[str, np.ndarray], name: str) -> float:
    """What becomes of a tensor in float64 where the results before it are rounded to float32.

    The changes add up, each result being rounded in turn. A small variance magnifies rounding, and
    what is equal but for rounding (copies by Tile, say) may take turns at being the greatest. A
    rounded maximum is none of its numbers any more: what yields no number is passed over.
    """
    model = DoubleModel(grads)
    (exact,) = model.values((name,), feeds)
    results = [n for node in grads.graph.node for n in node.output if n]
    values = zip(results, model.values(results, feeds), strict=True)
    rounded = {n: value.astype(np.float32) for n, value in values if value.dtype == np.float64}
    moved = (model.values((name,), {**feeds, n: value})[0] for n, value in rounded.items())
    return sum(relative(value, exact) for value in moved if np.isfinite(value).all())


def test_every_operator_with_a_rule_is_drawn() -> None:
    rng, seen = random.Random(0), set()
    for _ in range(400):
        seeds = [rng.getrandbits(32) for _ in range(9)]
        seen |= network(seeds, rng.choice(OPSETS)).operators
    assert {step.op for step in STEPS} - seen == set(), "never drawn"
    assert set(DEFAULT_RULES.rules) - seen == set(NOT_DRAWN), "draw it, or say why not"


@pytest.mark.parametrize("op", ["Conv", "Softmax", "Split", "Where"])
def test_a_rule_that_is_off_by_a_hundredth_is_found(op: str) -> None:
    right = DEFAULT_RULES.rules[op].fn
    assert right is not None

    def wrong(op, node, cts):
        return [dx and op.Mul(dx, 1.01) for dx in right(op, node, cts)]

    drawn = find(networks(most=5), lambda drawn: op in drawn.operators, settings=looking)
    assert_explained(drawn)
    with pytest.raises(AssertionError, match="is off by"):
        assert_explained(drawn, DEFAULT_RULES.override(**{op: wrong}))
