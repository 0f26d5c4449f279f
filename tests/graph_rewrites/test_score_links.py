"""Probabilities are seen through what keeps their order, and through nothing else."""

from __future__ import annotations

import warnings

import pytest

from graph_rewrites.graph import Graph
from graph_rewrites.scores import find_scores

from .test_scores import TO_10, parse

NUMBERS = (
    "<float[1] two = {2.0}, float less = {-2.0}, float low = {0.001}, "
    "float[10] many = {1, 2, 1, 1, 1, 1, 1, 1, 1, 1}>"
)


@pytest.mark.parametrize(
    ("behind", "peeled", "link"),
    [
        ("l = LogSoftmax(a) y = Exp(l)", ("LogSoftmax", "Exp"), "softmax"),
        ("p = Softmax(a) y = Clip(p, low)", ("Softmax", "Clip"), "softmax"),
        ("p = Softmax(a) y = Mul(p, two)", ("Softmax", "Mul"), "softmax"),
        ("p = Softmax(a) y = Mul(two, p)", ("Softmax", "Mul"), "softmax"),
        ("p = Sigmoid(a) y = Div(p, two)", ("Sigmoid", "Div"), "sigmoid"),
        ("p = Softmax(a) y = Sub(p, two)", ("Softmax", "Sub"), "softmax"),
        ("p = Softmax(a) q = Add(low, p) y = Log(q)", ("Softmax", "Add", "Log"), "log_softmax"),
    ],
)
def test_what_keeps_the_order_is_peeled(behind: str, peeled: tuple[str, ...], link: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_scores(Graph(parse(TO_10, f"a = Neg(x) {behind}", NUMBERS)))
    assert (found.tensor, found.peeled, found.link) == ("a", peeled, link)


@pytest.mark.parametrize(
    "behind",
    [
        "p = Sigmoid(a) y = Mul(p, less)",
        "p = Sigmoid(a) y = Sub(two, p)",
        "p = Sigmoid(a) y = Div(two, p)",
        "p = Sigmoid(a) y = Mul(p, a)",
        "p = Sigmoid(a) y = Exp(p)",
        "p = Sigmoid(a) y = Mul(p, many)",
    ],
)
def test_what_does_not_is_not(behind: str) -> None:
    found = find_scores(Graph(parse(TO_10, f"a = Neg(x) {behind}", NUMBERS)))
    assert (found.tensor, found.peeled, found.link) == ("y", (), "none")


def test_one_scaled_sigmoid_is_a_regression_within_bounds() -> None:
    one = "(float[N,1] x) => (float[N,1] y)"
    found = find_scores(Graph(parse(one, "p = Sigmoid(x) y = Mul(p, two)", NUMBERS)))
    assert (found.tensor, found.classes, found.link) == ("y", 1, "none")
