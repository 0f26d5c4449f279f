"""Feature maps: which are listed, with what layout and stride, and where they are read."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import pytest

from graph_rewrites.errors import UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.layers import FeatureMap, Resolved, find_feature_maps, resolve
from graph_rewrites.stamps import PREFIX_KEY

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
IMAGE = "(float[N,3,16,16] x) => (float[N,5] y)"
# Weights are drawn by nodes: only their shapes matter here.
WEIGHTS = """
    W1 = RandomNormal<shape = [8, 3, 3, 3]>()
    W2 = RandomNormal<shape = [8, 8, 3, 3]>()
    W5 = RandomNormal<shape = [5, 8, 1, 1]>()
    V5 = RandomNormal<shape = [5, 8, 3, 3]>()
    E8 = RandomNormal<shape = [8, 8]>()
    D8 = RandomNormal<shape = [8, 5]>()
    D2 = RandomNormal<shape = [128, 5]>()
    D3 = RandomNormal<shape = [512, 5]>()
    N8 = RandomNormal<shape = [8]>()
"""
CONV = "Conv<pads = [1, 1, 1, 1]>"
HALF = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"


def graph(body: str, signature: str = IMAGE, initializers: str = "") -> Graph:
    model = onnx.parser.parse_model(f"{HEAD} g {signature} {initializers} {{ {WEIGHTS} {body} }}")
    onnx.checker.check_model(model, full_check=True)
    return Graph(model)


def listed(maps: tuple[FeatureMap, ...]) -> dict[str, tuple[int, object]]:
    return {m.tensor: (m.channel_axis, m.stride) for m in maps}


def default(maps: tuple[FeatureMap, ...]) -> FeatureMap | None:
    found = [m for m in maps if m.default]
    assert len(found) <= 1
    return found[0] if found else None


DENSE = "g = GlobalAveragePool({}) f = Flatten(g) y = MatMul(f, D8)"


@dataclass(frozen=True)
class Walk:
    """Operators, and the channel axis and stride of each tensor that must be listed."""

    name: str
    body: str
    listed: dict[str, tuple[int, object]]
    signature: str = IMAGE
    initializers: str = ""


WALKS = (
    Walk(
        "height and width may be free, single positions are not offered",
        f"c = {CONV}(x, W1) p = {HALF}(c) g = GlobalAveragePool(p) s = Sigmoid(g) "
        "f = Flatten(s) y = MatMul(f, D8)",
        {"c": (1, None), "p": (1, None)},
        "(float[N,3,H,W] x) => (float[N,5] y)",
    ),
    Walk(
        "a picture with channels last; the preparation is not offered",
        f"a = Mul(x, x) t = Transpose<perm = [0, 3, 1, 2]>(a) c = {CONV}(t, W1) "
        "u = Transpose<perm = [0, 2, 3, 1]>(c) e = MatMul(u, E8) l = LayerNormalization(e, N8) "
        "k = Transpose<perm = [0, 3, 1, 2]>(l)" + DENSE.format("k"),
        {"c": (1, (1, 1)), "u": (3, (1, 1)), "e": (3, (1, 1)), "l": (3, (1, 1)), "k": (1, (1, 1))},
        "(float[N,16,16,3] x) => (float[N,5] y)",
    ),
    Walk(
        "width before height is not offered",
        f"c = {CONV}(x, W1) t = Transpose<perm = [0, 1, 3, 2]>(c) r = Relu(t)" + DENSE.format("r"),
        {"c": (1, (1, 1))},
    ),
    Walk(
        "a channel shuffle",
        f"c = {CONV}(x, W1) a = Reshape(c, split) b = Transpose<perm = [0, 2, 1, 3, 4]>(a) "
        "d = Reshape(b, merge)" + DENSE.format("d"),
        {"c": (1, (1, 1)), "d": (1, (1, 1))},
        initializers="<int64[5] split = {-1, 2, 4, 16, 16}, int64[4] merge = {-1, 8, 16, 16}>",
    ),
    Walk(
        "a group normalisation written with reshapes",
        f"c = {CONV}(x, W1) a = Reshape(c, groups) k = RandomNormal<shape = [2]>() "
        "b = InstanceNormalization(a, k, k) s = Shape(c) d = Reshape(b, s)" + DENSE.format("d"),
        {"c": (1, (1, 1)), "d": (1, (1, 1))},
        initializers="<int64[3] groups = {0, 2, -1}>",
    ),
    Walk(
        "windows of positions are not maps of the picture",
        f"c = {CONV}(x, W1) a = Reshape(c, split) b = Transpose<perm = [0, 1, 2, 4, 3, 5]>(a) "
        "d = Reshape(b, merge)" + DENSE.format("d"),
        {"c": (1, (1, 1))},
        initializers="<int64[6] split = {0, 8, 4, 4, 4, 4}, int64[4] merge = {0, 8, 16, 16}>",
    ),
    Walk(
        "a piece of the height is no height",
        f"c = {CONV}(x, W1) a = Reshape(c, split) b = ReduceMean<keepdims = 0>(a, rows) "
        + DENSE.format("b"),
        {"c": (1, (1, 1))},
        initializers="<int64[5] split = {0, 8, 4, 4, 16}, int64[1] rows = {2}>",
    ),
    Walk(
        "concatenate, split, pad, crop, resize",
        f"c = {CONV}(x, W1) a = Concat<axis = 1>(c, c) l, r = Split<axis = 1, num_outputs = 2>(a) "
        "m = Mul(l, r) p = Pad(m, pads) s = Slice(p, zero, eight, rows) "
        "z = Resize(s, , twice)" + DENSE.format("z"),
        {
            "c": (1, (1, 1)),
            "a": (1, (1, 1)),
            "l": (1, (1, 1)),
            "r": (1, (1, 1)),
            "m": (1, (1, 1)),
            "p": (1, (16 / 18, 16 / 18)),
            "s": (1, (2, 16 / 18)),
            "z": (1, (1, 16 / 36)),
        },
        initializers="<int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, int64[1] zero = {0}, "
        "int64[1] eight = {8}, int64[1] rows = {2}, float[4] twice = {1, 1, 2, 2}>",
    ),
    Walk(
        "signals",
        "w = RandomNormal<shape = [8, 2, 5]>() c = Conv<strides = [2]>(x, w) r = Relu(c)"
        + DENSE.format("r"),
        {"c": (1, (64 / 30,)), "r": (1, (64 / 30,))},
        "(float[N,2,64] x) => (float[N,5] y)",
    ),
    Walk(
        "volumes",
        "w = RandomNormal<shape = [8, 1, 1, 2, 2]>() c = Conv<strides = [1, 2, 2]>(x, w)"
        + DENSE.format("c"),
        {"c": (1, (1, 2, 2))},
        "(float[N,1,4,8,8] x) => (float[N,5] y)",
    ),
    Walk(
        "colours taken apart and joined again",
        "a = Gather<axis = 1>(x, i) b = Unsqueeze(a, one) d = Gather<axis = 1>(x, i) "
        "e = Unsqueeze(d, one) h = Concat<axis = 1>(b, e, b) "
        "c = Conv<strides = [2, 2]>(h, W1)" + DENSE.format("c"),
        {"c": (1, (16 / 7, 16 / 7))},
        initializers="<int64 i = {0}, int64[1] one = {1}>",
    ),
    Walk(
        "a sum of unlike layouts is not offered",
        "w = RandomNormal<shape = [16, 3, 3, 3]>() c = Conv<pads = [1, 1, 1, 1]>(x, w) "
        "t = Transpose<perm = [0, 2, 3, 1]>(c) s = Add(c, t) f = Flatten(s) "
        "d = RandomNormal<shape = [4096, 5]>() y = MatMul(f, d)",
        {"c": (1, (1, 1)), "t": (3, (1, 1))},
    ),
    Walk(
        "branches that do not lead to the scores are not offered",
        f"c = {CONV}(x, W1) other = Relu(c)" + DENSE.format("c"),
        {"c": (1, (1, 1))},
        "(float[N,3,16,16] x) => (float[N,5] y, float[N,8,16,16] other)",
    ),
)


@pytest.mark.parametrize("walk", WALKS, ids=lambda w: w.name)
def test_listed(walk: Walk) -> None:
    maps = find_feature_maps(graph(walk.body, walk.signature, walk.initializers))
    assert listed(maps) == walk.listed


def test_added_nodes_and_their_inputs_are_overlooked() -> None:
    body = f"c = {CONV}(x, W1) r = Relu(c)" + DENSE.format("r")
    before = find_feature_maps(graph(body))
    model = graph(
        body + " back = Mul(r, ct)",
        f"{IMAGE[:-1]}, float[N,8,16,16] back)".replace(
            "(float[N,3,16,16] x)", "(float[N,3,16,16] x, float[N,8,16,16] ct)"
        ),
    ).export()
    model.graph.node[-1].metadata_props.add(key=PREFIX_KEY, value="grad")
    opened = Graph(model)
    assert find_feature_maps(opened) == before
    for name in ("back", "ct"):
        with pytest.raises(UnknownTensorError):
            resolve(opened, name)


def test_without_scores_maps_are_listed_and_none_is_the_default() -> None:
    found = find_feature_maps(
        graph(f"y = {CONV}(x, W1)", "(float[N,3,16,16] x) => (float[N,8,16,16] y)")
    )
    assert listed(found) == {"y": (1, (1, 1))}
    assert default(found) is None


QUANT = "<float s = {0.1}, uint8 z = {0}, float t = {0.2}>"
QDQ = graph(
    f"q0 = QuantizeLinear(x, s, z) d0 = DequantizeLinear(q0, s, z) c = {CONV}(d0, W1) r = Relu(c) "
    "q1 = QuantizeLinear(r, s, z) d1 = DequantizeLinear(q1, s, z) e1 = DequantizeLinear(q1, s, z) "
    f"k = {CONV}(d1, W2) a = Add(k, e1) q2 = QuantizeLinear(a, s, z) p = {HALF}(q2) "
    f"d2 = DequantizeLinear(p, s, z) m = {CONV}(d2, W2) q3 = QuantizeLinear(m, s, z) u = Neg(m) "
    "d3 = DequantizeLinear(q3, s, z) v = Add(u, d3)" + DENSE.format("v"),
    initializers=QUANT,
)


def test_a_quantised_value_is_listed_once_under_its_float_name() -> None:
    found = list(listed(find_feature_maps(QDQ)))
    assert found == ["r", "k", "a", "p", "m", "u", "v"]  # c is inside an integer kernel


@pytest.mark.parametrize(
    ("name", "tensor", "gradient_at", "feature_map"),
    [
        ("x", "x", "x", "x"),  # an input stands for itself
        ("c", "c", "c", "c"),
        ("r", "d1", "q1", "r"),  # only the QuantizeLinear reads it
        ("q1", "d1", "q1", "r"),
        ("d1", "d1", "q1", "r"),  # another DequantizeLinear reads the same value
        ("e1", "e1", "q1", "r"),
        ("a", "q2", "q2", "a"),  # nothing dequantises it: a pool works on the integers
        ("p", "d2", "p", "p"),
        ("m", "m", "m", "m"),  # it is read as a float too
        ("q3", "d3", "q3", "m"),
        ("-1", "v", "v", "v"),
        ("0", "d1", "q1", "r"),
    ],
)
def test_resolve_quantised(name: str, tensor: str, gradient_at: str, feature_map: str) -> None:
    assert resolve(QDQ, name) == Resolved(name, tensor, gradient_at, feature_map)


def test_a_weight_is_no_layer() -> None:
    assert QDQ.constant("s") is not None
    with pytest.raises(UnknownTensorError):
        resolve(QDQ, "s")
