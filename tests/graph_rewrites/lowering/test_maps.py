"""Grad-CAM, lowered: nothing is spread over positions of which the mean is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.samples import graph_of

from .test_patterns import ROUNDING, relative

HEIGHT, WIDTH = 19, 14
POOLS = {  # and the size of what they leave
    "kernel_shape=[2,2], strides=[2,2]": (9, 7),
    "kernel_shape=[3,3], strides=[2,2]": (9, 6),
    "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]": (10, 7),
    "kernel_shape=[3,2], strides=[3,2], ceil_mode=1": (7, 7),
}
FLAT = {
    "Flatten": "f = Flatten(q) h = Gemm(f, w)",
    "turned": "f = Flatten(q) h = Gemm<transB=1>(f, v)",
    "MatMul": "f = Flatten(q) h = MatMul(f, w)",
    "channels last": "t = Transpose<perm=[0,2,3,1]>(q) f = Flatten(t) h = MatMul(f, w)",
    "scaled": "f = Flatten(q) h = Gemm<alpha=0.5>(f, w)",
}


def network(pool: str, flat: str) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    height, width = POOLS[pool]
    w = rng.standard_normal((8 * height * width, 24)).astype(np.float32) / 30
    weights = {"v": w.T.copy()} if flat == "turned" else {"w": w}
    body = (
        f"c = Conv<pads=[1,1,1,1]>(x, k) a = Relu(c) p = MaxPool<{pool}>(a)"
        f" q = AveragePool<kernel_shape=[1,1]>(p) {FLAT[flat]} b = Relu(h) y = Gemm(b, z)"
    )
    return graph_of(
        f"net (float[N,3,{HEIGHT},{WIDTH}] x) => (float[N,5] y) {{ {body} }}",
        k=rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        z=rng.standard_normal((24, 5)).astype(np.float32),
        **weights,
    )


def compared(built: onnx.ModelProto, targets: np.ndarray) -> tuple[Counter[str], onnx.ModelProto]:
    """What the lowered model is made of; it computes what the portable one does."""
    x = np.random.default_rng(1).standard_normal((len(targets), 3, HEIGHT, WIDTH))
    feeds = {"x": x.astype(np.float32), "target": targets}
    lowered = gr.lower(built, "cpu", {name: value.shape for name, value in feeds.items()})
    expected = run(built, feeds)
    for optimised in (False, True):
        found = run(lowered, feeds, optimised=optimised)
        for name in (name for name in expected if name.startswith("map/")):
            assert relative(found[name], expected[name]) < ROUNDING
    return Counter(node.op_type for node in lowered.graph.node), lowered


def sizes(model: onnx.ModelProto) -> list[Sequence[int]]:
    return [tuple(tensor.dims) for tensor in model.graph.initializer]


@pytest.mark.parametrize("flat", FLAT)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("images", [1, 3])
def test_the_mean_is_taken_of_the_weight(pool: str, flat: str, images: int) -> None:
    built = gr.explanation_model(network(pool, flat), "grad_cam")
    made, lowered = compared(built, np.arange(images))
    assert made["MaxPool"] == 1 and not made["ScatterElements"] + made["MaxUnpool"]
    assert ((24, 8) in sizes(lowered)) == (flat != "scaled")


@pytest.mark.parametrize("pool", POOLS)
def test_several_targets(pool: str) -> None:
    built = gr.explanation_model(network(pool, "Flatten"), "grad_cam", targets=3)
    compared(built, np.array([[0, 1, 2], [4, 3, 2]]))


def test_what_goes_on_to_the_picture_is_spread_all_the_same() -> None:
    pool = "kernel_shape=[2,2], strides=[2,2]"
    built = gr.explanation_model(network(pool, "Flatten"), ("gradient", "grad_cam"))
    made, lowered = compared(built, np.arange(2))
    assert made["MaxUnpool"] == 1 and (24, 8) not in sizes(lowered)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 4), (3, 2), (17, 1), (17, 10)])
def test_a_small_map_is_resized_by_products(kernel: tuple[int, int]) -> None:
    height, width = kernel
    body = (
        f"p = MaxPool<kernel_shape=[{height},{width}], strides=[{height},{width}]>(x)"
        " a = Conv(p, k) m = GlobalAveragePool(a) f = Flatten(m) y = Gemm(f, z)"
    )
    rng = np.random.default_rng(0)
    model = graph_of(
        f"net (float[N,3,34,20] x) => (float[N,5] y) {{ {body} }}",
        k=rng.standard_normal((4, 3, 1, 1)).astype(np.float32),
        z=rng.standard_normal((4, 5)).astype(np.float32),
    )
    built = gr.explanation_model(model, "grad_cam", layer="a")
    feeds = {
        "x": rng.standard_normal((2, 3, 34, 20)).astype(np.float32),
        "target": np.arange(2),
    }
    lowered = gr.lower(built, "cpu", {name: value.shape for name, value in feeds.items()})
    small = 34 // height <= 16 and 20 // width <= 16
    assert ("heads/grad_cam/Resize/MatMul" in {n.name for n in lowered.graph.node}) == small
    found, expected = run(lowered, feeds)["map/grad_cam"], run(built, feeds)["map/grad_cam"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
