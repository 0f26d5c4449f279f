"""Several targets go back one after the other, and give what they give together."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from graph_rewrites.lowering.separation import MOST
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import graph_of

SIZE = 8


def network(dense: str = "s = Flatten(p) y = Gemm(s, u)") -> onnx.ModelProto:
    """A convolution, a gate, a dense layer and its ReLU, and what `dense` makes the scores of."""
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 3, 3, 3), "q": (16, 16, 1, 1), "u": (16, 5), "v": (5, 5)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    body = f"""h = Conv<pads=[1,1,1,1]>(x, w) r = Relu(h) a = GlobalAveragePool(r) b = Conv(a, q)
        g = Sigmoid(b) e = Mul(r, g) k = Conv(e, q) p = GlobalAveragePool(k) {dense}"""
    text = f"net (float[N,3,{SIZE},{SIZE}] x) => (float[N,5] y) {{ {body} }}"
    used = {name: value for name, value in weights.items() if name in body.replace(")", ",")}
    return graph_of(text, **used)


def feeds(images: int, targets: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(images)
    x = rng.standard_normal((images, 3, SIZE, SIZE)).astype(np.float32)
    return {"x": x, "target": rng.integers(-1, 5, (images, targets))}


def lowered(model: onnx.ModelProto, fed: dict[str, np.ndarray]) -> onnx.ModelProto:
    return gr.lower(model, "cpu", {name: value.shape for name, value in fed.items()})


def copies(model: onnx.ModelProto) -> int:
    """How many backward nodes belong to the second target."""
    return sum("/target1" in node.name for node in model.graph.node)


@pytest.mark.parametrize(
    "dense",
    [
        "s = Flatten(p) y = Gemm(s, u)",
        "s = Flatten(p) d = Gemm(s, u) t = Relu(d) y = Gemm(t, v)",
        "s = Flatten(p) d = Gemm(s, u) y = Softmax(d)",
    ],
)
@pytest.mark.parametrize("method", ["gradient", "guided_grad_cam", ("saliency", "grad_cam")])
@pytest.mark.parametrize("images", [1, 2])
def test_apart_they_give_the_same_maps(
    images: int, method: str | tuple[str, ...], dense: str
) -> None:
    fed = feeds(images, 3)
    model = gr.explanation_model(network(dense), method, targets=3)
    fast = lowered(model, fed)
    assert copies(fast)
    found, expected = run(fast, fed), run(model, fed)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_dense_layers_keep_the_rows_together() -> None:
    dense = "s = Flatten(p) d = Gemm(s, u) t = Relu(d) y = Gemm(t, v)"
    model = lowered(gr.explanation_model(network(dense), "gradient", targets=4), feeds(1, 4))
    products = [n.name for n in model.graph.node if n.op_type in ("Gemm", "MatMul")]
    assert len(products) == 4  # two of the network, two of the way back
    assert not any("/target" in name for name in products)


def test_the_masks_are_read_from_the_forward_pass_itself() -> None:
    model = lowered(gr.explanation_model(network(), "gradient", targets=3), feeds(1, 3))
    steps = {tuple(n.input) for n in model.graph.node if n.op_type == "HardSigmoid"}
    assert ("r",) in steps


@pytest.mark.parametrize("targets", [1, MOST + 1])
def test_one_target_and_very_many_stay_as_they_are(targets: int) -> None:
    model = gr.explanation_model(network(), "gradient", targets=targets)
    fed = feeds(2, targets)
    fed = fed if targets > 1 else {**fed, "target": fed["target"][:, 0]}
    fast = lowered(model, fed)
    assert not copies(fast)
    value = run(model, fed)["map/gradient"]
    np.testing.assert_allclose(run(fast, fed)["map/gradient"], value, rtol=1e-4, atol=1e-6)


def test_open_shapes_stay_as_they_are() -> None:
    model = gr.explanation_model(network(), "gradient", targets=3)
    assert not copies(gr.lower(model, "cpu"))


TOKENS = """h = Conv<pads=[1,1,1,1]>(x, w) f = Reshape(h, tokens) t = Transpose<perm=[0,2,1]>(f)
    a = MatMul(t, q) r = Relu(a) one = Gather<axis=1>(r, first) y = Gemm(one, u)"""
NORM = """h = Conv<pads=[1,1,1,1]>(x, w) f = Reshape(h, line) mean = ReduceMean(f, last)
    d = Sub(f, mean) e = Mul(d, d) v = ReduceMean(e, last) s = Sqrt(v) n = Div(d, s)
    r = Reshape(n, picture) p = GlobalAveragePool(r) l = Flatten(p) y = Gemm(l, u)"""


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("body", [TOKENS, NORM], ids=["one token of many", "one line a picture"])
def test_what_mixes_the_rows_or_is_no_picture_goes_back_apart_too(body: str, images: int) -> None:
    """A token's cotangent is put back into all rows in one line; a norm may see pictures flat."""
    rng = np.random.default_rng(0)
    weights = {"w": (16, 3, 3, 3), "q": (16, 16), "u": (16, 5)}
    values = {name: rng.standard_normal(s).astype(np.float32) for name, s in weights.items()}
    sizes = {"tokens": [0, 16, -1], "line": [0, 1, -1], "picture": [0, 16, SIZE, SIZE], "last": [2]}
    values.update({name: np.array(size) for name, size in sizes.items()}, first=np.array(0))
    used = {name: value for name, value in values.items() if re.search(rf"\b{name}\b", body)}
    net = graph_of(f"net (float[N,3,{SIZE},{SIZE}] x) => (float[N,5] y) {{ {body} }}", **used)
    model, fed = gr.explanation_model(net, "gradient", targets=3), feeds(images, 3)
    fast = lowered(model, fed)
    assert copies(fast)
    expected = run(model, fed)["map/gradient"]
    np.testing.assert_allclose(run(fast, fed)["map/gradient"], expected, rtol=1e-4, atol=1e-6)
