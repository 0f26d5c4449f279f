"""Shapes of which only the number of images is open are written so that inference reads them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graph_rewrites.canonical import canonical_facts, open_canonical
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(5)


def check(model: onnx.ModelProto, *shapes: tuple[int, ...]) -> tuple[list[str], tuple[object, ...]]:
    """The canonical form gives the original's numbers; its operators, and the shape of `y`."""
    graph = open_canonical(model)
    canonical = graph.export()
    onnx.checker.check_model(canonical, full_check=True)
    for shape in shapes:
        x = RNG.standard_normal(shape).astype(np.float32)
        (expected,) = session(model).run(["y"], {"x": x})
        np.testing.assert_array_equal(run(canonical, {"x": x})["y"], expected)
    (node,) = [node for node in graph.nodes if node.output == "y"]
    return [node.op_type for node in graph.nodes], graph.known_shape(node.input(0))


def expanded(lead: str = "N,3,4,4", chosen: int = -1) -> onnx.ModelProto:
    """A token expanded to [count of x, -1] as PyTorch's older exporter writes it."""
    return graph_of(
        f"""agraph (float[{lead}] x) => (float[?,5] y) {{ s = Shape(x)  n = Gather(s, zero)
        m = Unsqueeze(n, front)  c = Concat<axis=0>(m, open)  a = Reshape(c, open)
        e = Equal(a, asked)  w = Where(e, ones, a)  t = Expand(token, w)  p = ReduceMean<keepdims=0>
        (x, inner)  r = Unsqueeze(p, column)  f = Mul(t, r)  y = Neg(f) }}""",
        zero=np.array(0),
        front=np.array([0]),
        open=np.array([-1]),
        asked=np.array([chosen, -1]),
        ones=np.array([1, 1]),
        token=RNG.standard_normal((1, 5)).astype(np.float32),
        inner=np.array([1, 2, 3]),
        column=np.array([1]),
    )


def test_a_choice_between_sizes_becomes_what_it_chooses() -> None:
    operators, shape = check(expanded(), (1, 3, 4, 4), (3, 3, 4, 4))
    assert not {"Where", "Equal"} & set(operators)
    assert shape == ("N", 5)


def test_a_choice_that_the_number_of_images_decides_stays() -> None:
    operators, _ = check(expanded(chosen=3), (1, 3, 4, 4), (3, 3, 4, 4))
    assert "Where" in operators


def test_a_name_that_other_dimensions_have_too_says_nothing() -> None:
    operators, _ = check(expanded("N,3,N,N"), (1, 3, 4, 5), (3, 3, 2, 4))
    assert "Where" in operators


def test_a_fixed_batch_is_freed_through_a_choice() -> None:
    model = expanded("1,3,4,4")
    graph = open_canonical(model)
    assert canonical_facts(graph.export())["batch"] == "free"
    x = RNG.standard_normal((3, 3, 4, 4)).astype(np.float32)
    apart = [session(model).run(None, {"x": row[None]})[0] for row in x]
    np.testing.assert_allclose(run(graph.export(), {"x": x})["y"], np.concatenate(apart), rtol=1e-6)


@pytest.mark.parametrize(
    ("perm", "kept", "allowzero", "shape"),
    [
        ("0,1,2,3", [0, 1], 0, ("N", 3, 16)),
        ("1,0,2,3", [0, 1], 0, (3, "N", 16)),
        ("1,0,2,3", [1, 0], 0, None),  # the images move: no 0 copies them
        ("0,1,2,3", [0, 1], 1, None),  # a 0 would be a size
    ],
)
def test_a_size_beside_the_images_is_solved(
    perm: str, kept: list[int], allowzero: int, shape: tuple[object, ...] | None
) -> None:
    model = graph_of(
        f"""agraph (float[N,3,4,4] x) => (float[?,?,?] y) {{ t = Transpose<perm=[{perm}]>(x)
        s = Shape(t)  f = Gather(s, kept)  c = Concat<axis=0>(f, open)
        r = Reshape<allowzero={allowzero}>(t, c)  y = Neg(r) }}""",
        kept=np.array(kept),
        open=np.array([-1]),
    )
    operators, found = check(model, (1, 3, 4, 4), (5, 3, 4, 4))
    assert ("Shape" in operators) == (shape is None)
    assert shape in (None, found)
