"""Grad-CAM, lowered: nothing is spread over positions of which the mean is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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


def compared(
    built: onnx.ModelProto,
    targets: np.ndarray,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    rounding: float = ROUNDING,
) -> tuple[Counter[str], onnx.ModelProto]:
    """What the lowered model is made of; it computes what the portable one does."""
    x = np.random.default_rng(1).standard_normal((len(targets), 3, *size))
    feeds = {"x": x.astype(np.float32), "target": targets}
    lowered = gr.lower(built, "cpu", {name: value.shape for name, value in feeds.items()})
    expected = run(built, feeds)
    for optimised in (False, True):
        found = run(lowered, feeds, optimised=optimised)
        for name in (name for name in expected if name.startswith("map/")):
            assert relative(found[name], expected[name]) < rounding
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


def grad_cam_of(body: str, layer: str, size: str, **weights: np.ndarray) -> onnx.ModelProto:
    """Grad-CAM of a network whose first convolution makes eight maps of three."""
    rng = np.random.default_rng(0)
    kernels = {"k": (8, 3, 3, 3), "z": (8, 5)}
    weights |= {n: rng.standard_normal(s).astype(np.float32) for n, s in kernels.items()}
    text = f"c = Conv<pads=[1,1,1,1]>(x, k) a = Relu(c) {body} f = Flatten(m) y = Gemm(f, z)"
    model = graph_of(f"net (float[N,3,{size}] x) => (float[N,5] y) {{ {text} }}", **weights)
    return gr.explanation_model(model, "grad_cam", layer=layer)


def test_what_the_network_itself_adds_to_maps_is_no_unpooling() -> None:
    body = (
        "p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)"
        " base = Reshape(a, flat) at = Reshape(i, flat) values = Reshape(p, flat)"
        ' s = ScatterElements<axis=0, reduction="add">(base, at, values) u = Reshape(s, maps)'
        " q = InstanceNormalization(u, g, b) e = Relu(q) m = GlobalAveragePool(e)"
    )
    weights = {
        "flat": np.array([-1]),
        "maps": np.array([-1, 8, HEIGHT - 1, WIDTH]),
        "g": np.ones(8, np.float32),
        "b": np.zeros(8, np.float32),
    }
    built = grad_cam_of(body, "a", f"{HEIGHT - 1},{WIDTH}", **weights)
    compared(built, np.arange(2), (HEIGHT - 1, WIDTH), rounding=1e-4)  # it nearly cancels


@pytest.mark.parametrize("layer", ["a", "p", "d"])
@pytest.mark.parametrize("size", [(5, 5), (6, 6), (5, 6), (9, 7)])
def test_sizes_that_were_open_round_up_as_the_runtime_does(
    layer: str, size: tuple[int, int]
) -> None:
    """Shape inference counts windows that begin in the padding behind, which the runtime drops."""
    pool = "MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>"
    body = f"p = {pool}(a) d = {pool}(p) m = GlobalAveragePool(d)"
    built = grad_cam_of(body, layer, "H,W")
    compared(built, np.arange(2), size)


def test_what_windows_in_the_padding_put_back_is_not_counted_on() -> None:
    pool = "MaxPool<kernel_shape=[2,2], dilations=[3,3], pads=[1,1,1,1]>"
    built = grad_cam_of(f"p = {pool}(a) m = GlobalAveragePool(p)", "a", "2,3")
    compared(built, np.arange(2), (2, 3))


def test_a_weight_left_in_its_file_stays_there(tmp_path: Path) -> None:
    built = gr.explanation_model(network(next(iter(POOLS)), "Flatten"), "grad_cam")
    onnx.save(built, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=1024)
    away = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    lowered = gr.lower(away, "cpu", {"x": (1, 3, HEIGHT, WIDTH), "target": (1,)})
    assert (24, 8) not in sizes(lowered)
