"""Outputs that are no class scores are explained with a warning, and plain ones without."""

from __future__ import annotations

import warnings

import onnx
import pytest

import graph_rewrites as gr
from graph_rewrites.scores import AmbiguousScoresWarning

from .place_models import decoded, detector, segmentation
from .test_scores import TO_10, parse

SIZES = (
    "<int64[1] one = {1}, int64[1] three = {3}, int64[1] nine = {9}, int64[1] ten = {10}, "
    "float unit = {1.0}>"
)
TO_9 = "(float[N,10] x) => (float[N,9] y)"
TO_3 = "(float[N,10] x) => (float[N,3] y, int64[N,3] i)"


@pytest.mark.parametrize(
    ("signature", "body", "message"),
    [
        (TO_3, "p = Softmax(x) y, i = TopK(p, three)", "largest values"),
        (TO_10, "p = Softmax(x) s = ReduceSum(p, one) y = Div(p, s)", "probabilities"),
        (TO_9, "p = Softmax(x) y = Slice(p, one, ten, one)", "probabilities"),
        (
            "(float[N,1] x) => (float[N,2] y)",
            "p = Sigmoid(x) q = Sub(unit, p) y = Concat<axis = 1>(q, p)",
            "probabilities",
        ),
    ],
)
def test_what_is_no_score_is_told(signature: str, body: str, message: str) -> None:
    with pytest.warns(AmbiguousScoresWarning, match=rf"output 'y' .*{message}.*`of`") as told:
        assert gr.scores(parse(signature, body, SIZES)).tensor == "y"
    assert "\n" not in str(told[0].message)


SILENT = {
    "silu": parse(TO_10, "p = Sigmoid(x) y = Mul(p, x)"),
    "gate": parse(TO_10, "p = Softmax(x) a = Abs(x) y = Mul(p, a)"),
    "two heads": parse(
        "(float[N,10] x) => (float[N,20] y)", "a = Abs(x) b = Neg(x) y = Concat<axis = 1>(a, b)"
    ),
    "expected value": parse(
        "(float[N,10] x) => (float[N,1] y)", "p = Softmax(x) y = ReduceSum(p, one)", SIZES
    ),
    "segmentation": segmentation(),
    "detector": detector(),
    "YOLOv8": decoded(),
}


@pytest.mark.parametrize("name", SILENT)
def test_no_false_doubts(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gr.scores(SILENT[name])


@pytest.mark.parametrize("link", ["Sigmoid", "Softmax<axis=1>"])
def test_probabilities_beside_boxes_are_found(link: str) -> None:
    for found in (gr.scores(decoded(link)), gr.scores(decoded(link), "out")):
        assert (found.tensor, found.class_axis, found.classes) == ("logits", 1, 5)
        assert found.position_axes == (2,)
        assert found.peeled == (link.partition("<")[0], "Concat")


def one_sigmoid_over_everything() -> onnx.ModelProto:
    """YOLOv5: boxes and classes are cut out of one sigmoid, and the boxes decoded."""
    return decoded(
        "Sigmoid",
        """every = Sigmoid(lined)
        raw, probable = Split<axis=1>(every, sizes)
        scaled = Mul(raw, eight)
        out = Concat<axis=1>(scaled, probable)""",
    )


def test_boxes_that_cannot_be_told_from_scores() -> None:
    with pytest.warns(AmbiguousScoresWarning, match=r"'out' \(N, 9, 36\) .*unlike .*`of`"):
        assert gr.scores(one_sigmoid_over_everything()).tensor == "out"
