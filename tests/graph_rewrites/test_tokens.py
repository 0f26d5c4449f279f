"""Grids of tokens: found, listed, chosen by default, and laid out in 2-D for the maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

import graph_rewrites as gr

from . import transformers as t
from .runtime import run
from .test_layers import CONV, graph

PICTURES = np.random.default_rng(1).normal(size=(2, 3, 12, 8)).astype(np.float32)
SEED = np.eye(t.CLASSES, dtype=np.float32)[[3, 1]]


@dataclass(frozen=True)
class Family:
    """A transformer, its default layer, and how many other tokens lead (None for a map)."""

    name: str
    build: Callable[[], onnx.ModelProto]
    default: str
    lead: int | None

    def model(self) -> onnx.ModelProto:
        return self.build()


FAMILIES = (
    Family("class token (ViT)", t.class_token, "b1.norm1", 1),
    Family("two class tokens (DeiT)", lambda: t.class_token(2), "b1.norm1", 2),
    Family("class and register tokens (DINOv2)", lambda: t.class_token(5), "b1.norm1", 5),
    Family("class token of the older exporter", t.older_exporter, "b0.norm1", 1),
    Family("average of the patches", t.average, "norm", 1),
    Family("class attention (CaiT)", t.class_attention, "ask.norm1", 1),
    Family("attention pool (SigLIP)", t.attention_pool, "norm", 0),
    Family("mixer", t.mixer, "norm", 0),
    Family("patches cut by a Reshape (NaFlex)", t.cut_by_reshape, "b0.out", 0),
    Family("windows, channels last (Swin)", t.windows, "norm", None),
)
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def found(model: onnx.ModelProto) -> dict[str, gr.FeatureMap]:
    return {m.tensor: m for m in gr.feature_maps(model)}


@families
def test_default(family: Family) -> None:
    maps = found(family.model())
    (chosen,) = [m for m in maps.values() if m.default]
    assert chosen.tensor == family.default
    assert chosen.stride == (4, 4)
    if family.lead is None:
        assert (chosen.shape[1:], chosen.channel_axis) == ((*t.GRID, t.WIDTH), 3)
        assert chosen.tokens is None
    else:
        length = family.lead + t.TOKENS
        assert (chosen.shape[1:], chosen.channel_axis) == ((length, t.WIDTH), 2)
        assert chosen.tokens == (*t.GRID, family.lead)


def patch_gradient(model: onnx.ModelProto, layer: gr.FeatureMap) -> np.ndarray:
    """∂S/∂A at the positions of the grid alone, (N, h, w, C)."""
    grads = run(gr.differentiate(model, wrt=[layer.tensor]), {"x": PICTURES, "cotangent": SEED})
    return on_the_grid(grads[f"grad/{layer.tensor}"], layer)


def on_the_grid(values: np.ndarray, layer: gr.FeatureMap) -> np.ndarray:
    if layer.tokens is None:
        return values
    height, width, lead = layer.tokens
    return values[:, lead : lead + height * width].reshape(len(values), height, width, -1)


@families
def test_the_patches_of_the_default_layer_reach_the_scores(family: Family) -> None:
    model = family.model()
    gradient = patch_gradient(model, found(model)[family.default])
    assert (np.abs(gradient).max(axis=-1) > 1e-6).all()


@pytest.mark.parametrize("later", ["b1.mixed", "b1.norm2", "b1.out", "norm"])
def test_behind_the_last_attention_only_the_class_token_counts(later: str) -> None:
    model = t.class_token()
    assert not patch_gradient(model, found(model)[later]).any()


@families
def test_grad_cam_is_that_of_the_patches(family: Family) -> None:
    model = family.model()
    layer = found(model)[family.default]
    explained = run(gr.explanation_model(model), {"x": PICTURES, "target": np.array([3, 1])})
    gradient = patch_gradient(model, layer)
    features = on_the_grid(run(tapped(model, layer.tensor), {"x": PICTURES})[layer.tensor], layer)
    cam = np.maximum((gradient.mean((1, 2), keepdims=True) * features).sum(-1), 0)
    assert cam.any()
    np.testing.assert_allclose(explained["map/grad_cam/raw"], cam, rtol=1e-4, atol=1e-7)
    assert explained["map/grad_cam"].shape == (2, 12, 8)


def test_the_shape_of_the_raw_map_is_declared() -> None:
    model = gr.explanation_model(t.class_token(5), layer="b0.out")
    (raw,) = [o for o in model.graph.output if o.name == "map/grad_cam/raw"]
    assert [d.dim_value for d in raw.type.tensor_type.shape.dim][1:] == [*t.GRID]


def tapped(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.add(name=tensor)
    return onnx.shape_inference.infer_shapes(copy)


SIZES = """<int64[3] flat = {0, 8, -1}, int64[4] wide = {0, 16, 16, 8}, int64[3] long = {0, -1, 8},
    int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3},
    int64[1] end = {9223372036854775807}, int64[2] parts = {2, 256},
    int64[6] cells = {0, 4, 4, 4, 4, 8}, int64[3] lists = {-1, 16, 8},
    int64[1] back = {-1}, int64[6] pads = {0, 2, 0, 0, 0, 0}>"""
FLAT = f"c = {CONV}(x, W1) f = Reshape(c, flat) t = Transpose<perm = [0, 2, 1]>(f) "


def walked(body: str, ends: str) -> dict[str, tuple[int, int, int] | None]:
    """The tokens of every map listed behind `t`; the `ends` are averaged over their positions."""
    tail = [f"m{end} = ReduceMean<keepdims = 0>({end}, one)" for end in ends.split()]
    total = ", ".join(f"m{end}" for end in ends.split())
    text = f"{FLAT} {body} {' '.join(tail)} total = Sum({total}) y = MatMul(total, D8)"
    maps = gr.feature_maps(graph(text, initializers=SIZES).export())
    return {m.tensor: m.tokens for m in maps if m.tensor != "c"}


PLAIN = {"f": (16, 16, 0), "t": (16, 16, 0)}


@pytest.mark.parametrize(
    ("body", "ends", "tokens"),
    [
        pytest.param("", "t", {}, id="a flattened map"),
        pytest.param(
            "l = Slice(t, zero, three, one) a = Concat<axis = 1>(l, t) b = Concat<axis = 1>(a, l) "
            "k = Concat<axis = 1>(t, l)",
            "a b k",
            {"a": (16, 16, 3), "b": (16, 16, 3), "k": (16, 16, 0)},
            id="others in front, behind, both",
        ),
        pytest.param("k = Concat<axis = 1>(t, t)", "k", {}, id="two grids are none"),
        pytest.param(
            "k = Concat<axis = 2>(t, t) e = RandomNormal<shape = [16, 8]>() g = MatMul(k, e)",
            "g",
            {"k": (16, 16, 0), "g": (16, 16, 0)},
            id="more channels",
        ),
        pytest.param(
            'p = Pad(t, pads) e = Pad<mode = "edge">(t, pads)',
            "p e",
            {"p": (16, 16, 2)},
            id="zeros in front; a repeated edge is no token of its own",
        ),
        pytest.param(
            "p = Pad(t, pads) l, g = Split<axis = 1>(p, parts) q = Slice(p, one, end, one) "
            "h = Slice(p, three, end, one) b = Slice(p, end, zero, one, back)",
            "l g q h b",
            {"p": (16, 16, 2), "g": (16, 16, 0), "q": (16, 16, 1)},
            id="taken out again, whole or in part, or backwards",
        ),
        pytest.param(
            "w = Reshape(t, wide) s = Slice(w, zero, end, one, two) v = Reshape(s, long)",
            "v",
            {"w": None, "s": None, "v": (8, 16, 0)},
            id="every second row",
        ),
        pytest.param(
            "d = Reshape(t, cells) e = Transpose<perm = [0, 1, 3, 2, 4, 5]>(d) "
            "g = Reshape(e, lists) h = Reshape(g, cells) "
            "i = Transpose<perm = [0, 1, 3, 2, 4, 5]>(h) v = Reshape(i, long) z = Reshape(h, long)",
            "v z",
            {"v": (16, 16, 0)},
            id="cut into windows and put together again, in the right order and in a wrong one",
        ),
    ],
)
def test_tokens_are_followed(
    body: str, ends: str, tokens: dict[str, tuple[int, int, int] | None]
) -> None:
    assert walked(body, ends) == PLAIN | tokens
