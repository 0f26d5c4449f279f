"""Requests for maps: checked before anything is built."""

import pytest

import graph_rewrites as gr
from analyzer.errors import UsageError
from analyzer.methods import METHODS
from analyzer.plan import Plan


def keys(*args) -> list[str]:
    return [item.key for item in Plan.of(*args).maps()]


def test_methods_are_those_of_graph_rewrites():
    assert set(METHODS) == set(gr.METHODS)


def test_outputs_are_named_as_in_the_contract():
    assert keys("saliency", None, 1, "gradient") == ["saliency"]
    assert keys("grad_cam", "a", 1, "gradient") == ["grad_cam"]
    assert keys("grad_cam", ("a", "b"), 1, "gradient") == ["grad_cam/a", "grad_cam/b"]
    assert keys(("saliency", "grad_cam"), ("a", "b"), 1, "gradient") == [
        "saliency",
        "grad_cam/a",
        "grad_cam/b",
    ]
    (item,) = Plan.of("grad_cam", ("a",), 1, "gradient").maps()
    assert (item.values, item.grid, item.layer) == ("map/grad_cam", "map/grad_cam/raw", "a")


def test_one_name_gives_one_explanation_and_a_tuple_several():
    assert not Plan.of("grad_cam", None, 1, "gradient").several
    assert not Plan.of("grad_cam", "a", 1, "gradient").several
    assert Plan.of(("grad_cam",), None, 1, "gradient").several
    assert Plan.of("grad_cam", ("a", "b"), 1, "gradient").several


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("grad_cm", None, 1, "gradient"), "nearest: grad_cam"),
        (((), None, 1, "gradient"), "at least one"),
        ((("saliency", "saliency"), None, 1, "gradient"), "once"),
        (("grad_cam", ("a", "a"), 1, "gradient"), "once"),
        (("saliency", "a", 1, "gradient"), "takes no layer"),
        (("saliency", None, 0, "gradient"), "at least one target"),
        (("saliency", None, 1, "clamp"), "known: gradient, positive, strict"),
    ],
)
def test_bad_requests(args, message):
    with pytest.raises(UsageError, match=message):
        Plan.of(*args)
