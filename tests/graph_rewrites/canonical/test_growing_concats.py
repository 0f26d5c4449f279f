"""A growing concatenation: the same numbers, one sum a layer on the way back."""

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import graph_of


def grown(*concats: str, axis: int = 1) -> onnx.ModelProto:
    """Concats of three tensors of x, each the only reader of one that a, b or c starts."""
    ends = [concat.partition(" ")[0] for concat in concats]
    body = " ".join(concat.replace("[]", f"<axis={axis}>") for concat in concats)
    body = f"a = Abs(x) b = Neg(x) c = Add(x, a) {body}"
    outputs = ", ".join(f"float[N,c{i},4,4] {end}" for i, end in enumerate(ends))
    return graph_of(f"net (float[N,2,4,4] x) => ({outputs}) {{ {body} }}")


def concats(model: onnx.ModelProto) -> list[list[str]]:
    return [list(n.input) for n in model.graph.node if n.op_type == "Concat"]


GROWING = ("p = Concat[](a, b)", "q = Concat[](a, b, c)", "r = Concat[](a, b, c, x)")


@pytest.mark.parametrize("axis", [1, -3])
def test_each_starts_from_the_one_before(axis: int) -> None:
    model = grown(*GROWING, axis=axis)
    canonical = gr.canonicalize(model)
    assert concats(canonical) == [["a", "b"], ["p", "c"], ["q", "x"]]
    x = {"x": np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)}
    for name, value in run(model, x).items():
        np.testing.assert_array_equal(run(canonical, x)[name], value)
    assert concats(gr.canonicalize(canonical)) == concats(canonical)


def test_the_order_in_the_file_does_not_matter() -> None:
    model = gr.canonicalize(grown(*GROWING[::-1]))
    assert sorted(concats(model)) == [["a", "b"], ["p", "c"], ["q", "x"]]


@pytest.mark.parametrize(
    "concats_",
    [
        ("p = Concat[](a, b)", "q = Concat[](b, a, c)"),
        ("p = Concat[](a)", "q = Concat[](a, c)"),
        ("p = Concat[](a, b)", "q = Concat[](a, b)"),
        ("p = Concat<axis=2>(a, b)", "q = Concat[](a, b, c)"),
    ],
)
def test_others_are_left_alone(concats_: tuple[str, ...]) -> None:
    model = grown(*concats_)
    assert concats(gr.canonicalize(model)) == concats(model)


def test_quantised_ones_are_left_alone() -> None:
    """Between DequantizeLinear and QuantizeLinear the runtime joins integers."""
    text = """net (float[N,2] x) => (float[N,6] y) {
        s = Constant<value_float=0.1>() q = QuantizeLinear(x, s) a = DequantizeLinear(q, s)
        p = Concat<axis=1>(a, a) r = Concat<axis=1>(a, a, a)
        t = QuantizeLinear(p, s) u = DequantizeLinear(t, s) v = QuantizeLinear(r, s)
        w = DequantizeLinear(v, s) z = Concat<axis=1>(u, w) g = Slice(z, i, j, k) y = Add(g, w)
    }"""
    slices = {name: np.array([value]) for name, value in (("i", 0), ("j", 6), ("k", 1))}
    model = graph_of(text, **slices)
    assert concats(gr.canonicalize(model))[:2] == [["a", "a"], ["a", "a", "a"]]


def test_the_way_back_has_one_sum_a_layer() -> None:
    """Ten layers of a dense block: nine sums at the joints, where there would be forty-five."""
    layers, features = [], ["x"]
    for i in range(10):
        joined = "x" if i == 0 else f"j{i}"
        if i:
            layers.append(f"{joined} = Concat<axis=1>({', '.join(features)})")
        layers.append(f"f{i} = Conv({joined}, w{i})")
        features.append(f"f{i}")
    body = " ".join((*layers, f"y = Concat<axis=1>({', '.join(features)})"))
    weights = {f"w{i}": np.ones((2, 2 * (i + 1), 1, 1), np.float32) for i in range(10)}
    model = graph_of(f"net (float[N,2,4,4] x) => (float[N,22,4,4] y) {{ {body} }}", **weights)
    grads = gr.differentiate(model, "x", of="y")
    assert sum(node.op_type == "Add" for node in grads.graph.node) == 10
