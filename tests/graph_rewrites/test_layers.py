"""Feature maps: which are listed, under what names, which is the default, how one is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from graph_rewrites.canonical import open_canonical
from graph_rewrites.errors import UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.layers import FeatureMap, Resolved, find_feature_maps, resolve
from graph_rewrites.stamps import PREFIX_KEY
from tests.oracles.families import FAMILIES, TORCHSCRIPT

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


@dataclass(frozen=True)
class Head:
    """What follows the picture, and the default layer of it (None if none fits)."""

    name: str
    body: str
    default: str | None
    initializers: str = ""


DENSE = "g = GlobalAveragePool({}) f = Flatten(g) y = MatMul(f, D8)"
HEADS = (
    Head(
        "activation before the average", f"c = {CONV}(x, W1) r = Relu(c)" + DENSE.format("r"), "r"
    ),
    Head("linear maps", f"c = {CONV}(x, W1)" + DENSE.format("c"), "c"),
    Head(
        "activation before the last max-pool (VGG)",
        f"c = {CONV}(x, W1) r = Relu(c) p = {HALF}(r) q = {HALF}(p) f = Flatten(q) "
        "y = MatMul(f, D2)",
        "r",
    ),
    Head(
        "the activation behind the pool is the map's own",
        f"c = {CONV}(x, W1) p = {HALF}(c) r = Relu(p) f = Flatten(r) y = MatMul(f, D3)",
        "r",
    ),
    Head(
        "normalisation behind the activation, a pool, another normalisation",
        f"c = {CONV}(x, W1) r = Relu(c) b = BatchNormalization(r, N8, N8, N8, N8) p = {HALF}(b) "
        "n = BatchNormalization(p, N8, N8, N8, N8) f = Flatten(n) y = MatMul(f, D3)",
        "b",
    ),
    Head(
        "the last normalisation's activation (DenseNet)",
        f"c = {CONV}(x, W1) r = Relu(c) c2 = {CONV}(r, W2) a = Concat<axis = 1>(r, c2) "
        "s = Slice(a, zero, eight, one) b = BatchNormalization(s, N8, N8, N8, N8) r2 = Relu(b)"
        + DENSE.format("r2"),
        "r2",
        "<int64[1] zero = {0}, int64[1] eight = {8}, int64[1] one = {1}>",
    ),
    Head(
        "residual sum without an activation (ConvNeXt)",
        f"c = {CONV}(x, W1) r = Relu(c) c2 = {CONV}(r, W2) a = Add(r, c2)" + DENSE.format("a"),
        "a",
    ),
    Head(
        "a gated activation (SiLU) is an activation",
        f"c = {CONV}(x, W1) s = Sigmoid(c) m = Mul(c, s)" + DENSE.format("m"),
        "m",
    ),
    Head(
        "a bias added by its own operator (CNTK)",
        f"c = {CONV}(x, W1) k = Unsqueeze(N8, axes) b = Add(c, k) r = Relu(b)" + DENSE.format("r"),
        "r",
        "<int64[2] axes = {1, 2}>",
    ),
    Head(
        "convolution to the classes (SqueezeNet)",
        f"c = {CONV}(x, W1) r = Relu(c) k = Conv(r, W5) r2 = Relu(k) g = GlobalAveragePool(r2) "
        "f = Flatten(g) y = Softmax(f)",
        "r",
    ),
    Head(
        "convolution to the classes behind a pool",
        f"c = {CONV}(x, W1) r = Relu(c) p = {HALF}(r) k = Conv(p, W5) g = GlobalAveragePool(k) "
        "y = Flatten(g)",
        "r",
    ),
    Head(
        "a larger convolution to the classes",
        f"c = {CONV}(x, W1) r = Relu(c) k = {CONV}(r, V5) g = GlobalAveragePool(k) y = Flatten(g)",
        "r",
    ),
    Head(
        "as many channels as classes, but not to the classes",
        f"c = {CONV}(x, W1) k = Conv(c, W5) r = Relu(k) g = GlobalAveragePool(r) f = Flatten(g) "
        "e5 = RandomNormal<shape = [5, 5]>() y = MatMul(f, e5)",
        "r",
    ),
    Head(
        "the classifier as convolutions on one position",
        f"c = {CONV}(x, W1) r = Relu(c) g = GlobalAveragePool(r) k = Conv(g, W5) y = Flatten(k)",
        "r",
    ),
    Head(
        "the classifier as a convolution over the whole grid",
        f"c = {CONV}(x, W1) r = Relu(c) w = RandomNormal<shape = [5, 8, 16, 16]>() k = Conv(r, w) "
        "y = Flatten(k)",
        "r",
    ),
    Head(
        "dense layers with their activations",
        f"c = {CONV}(x, W1) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) h = MatMul(f, E8) "
        "i = Relu(h) y = MatMul(i, D8)",
        "r",
    ),
    Head(
        "average and maximum side by side",
        f"c = {CONV}(x, W1) r = Relu(c) a = GlobalAveragePool(r) m = GlobalMaxPool(r) "
        "s = Add(a, m) f = Flatten(s) y = MatMul(f, D8)",
        "r",
    ),
    Head(
        "mean over height, then over width",
        f"c = {CONV}(x, W1) r = Relu(c) a = ReduceMean<keepdims = 0>(r, h) "
        "b = ReduceMean<keepdims = 0>(a, h) y = MatMul(b, D8)",
        "r",
        "<int64[1] h = {2}>",
    ),
    Head(
        "flattened positions, channels last",
        f"c = {CONV}(x, W1) r = Relu(c) t = Transpose<perm = [0, 2, 3, 1]>(r) "
        "v = Reshape(t, shape) a = ReduceMean<keepdims = 0>(v, h) y = MatMul(a, D8)",
        "r",
        "<int64[3] shape = {0, 256, 8}, int64[1] h = {1}>",
    ),
    Head(
        "dense classes on every position, channels last",
        f"c = {CONV}(x, W1) r = Relu(c) t = Transpose<perm = [0, 2, 3, 1]>(r) k = MatMul(t, D8) "
        "y = ReduceMean<keepdims = 0>(k, hw)",
        "r",
        "<int64[2] hw = {1, 2}>",
    ),
    Head(
        "squeeze-and-excitation is no classifier",
        f"c = {CONV}(x, W1) r = Relu(c) a = GlobalAveragePool(r) s = Sigmoid(a) m = Mul(r, s)"
        + DENSE.format("m"),
        "m",
    ),
    Head(
        "a pool over channels is no pooling",
        f"c = {CONV}(x, W1) r = Relu(c) m = ReduceMean<keepdims = 1>(r, one) "
        "w = RandomNormal<shape = [5, 1, 16, 16]>() k = Conv(m, w) y = Flatten(k)",
        "m",
        "<int64[1] one = {1}>",
    ),
    Head(
        "the only activation works on a single position",
        "w = RandomNormal<shape = [8, 3, 16, 16]>() c = Conv(x, w) r = Relu(c) f = Flatten(r) "
        "y = MatMul(f, D8)",
        None,
    ),
)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_default(head: Head) -> None:
    found = default(find_feature_maps(graph(head.body, initializers=head.initializers)))
    assert (found.tensor if found else None) == head.default


@dataclass(frozen=True)
class Walk:
    """Operators, and the channel axis and stride of each tensor that must be listed."""

    name: str
    body: str
    listed: dict[str, tuple[int, object]]
    signature: str = IMAGE
    initializers: str = ""


TAIL = "g = GlobalAveragePool({0}) f = Flatten(g) y = MatMul(f, D8)"
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
        "k = Transpose<perm = [0, 3, 1, 2]>(l)" + TAIL.format("k"),
        {"c": (1, (1, 1)), "u": (3, (1, 1)), "e": (3, (1, 1)), "l": (3, (1, 1)), "k": (1, (1, 1))},
        "(float[N,16,16,3] x) => (float[N,5] y)",
    ),
    Walk(
        "width before height is not offered",
        f"c = {CONV}(x, W1) t = Transpose<perm = [0, 1, 3, 2]>(c) r = Relu(t)" + TAIL.format("r"),
        {"c": (1, (1, 1))},
    ),
    Walk(
        "a channel shuffle",
        f"c = {CONV}(x, W1) a = Reshape(c, split) b = Transpose<perm = [0, 2, 1, 3, 4]>(a) "
        "d = Reshape(b, merge)" + TAIL.format("d"),
        {"c": (1, (1, 1)), "d": (1, (1, 1))},
        initializers="<int64[5] split = {-1, 2, 4, 16, 16}, int64[4] merge = {-1, 8, 16, 16}>",
    ),
    Walk(
        "a group normalisation written with reshapes",
        f"c = {CONV}(x, W1) a = Reshape(c, groups) k = RandomNormal<shape = [2]>() "
        "b = InstanceNormalization(a, k, k) s = Shape(c) d = Reshape(b, s)" + TAIL.format("d"),
        {"c": (1, (1, 1)), "d": (1, (1, 1))},
        initializers="<int64[3] groups = {0, 2, -1}>",
    ),
    Walk(
        "windows of positions are not maps of the picture",
        f"c = {CONV}(x, W1) a = Reshape(c, split) b = Transpose<perm = [0, 1, 2, 4, 3, 5]>(a) "
        "d = Reshape(b, merge)" + TAIL.format("d"),
        {"c": (1, (1, 1))},
        initializers="<int64[6] split = {0, 8, 4, 4, 4, 4}, int64[4] merge = {0, 8, 16, 16}>",
    ),
    Walk(
        "concatenate, split, pad, crop, resize",
        f"c = {CONV}(x, W1) a = Concat<axis = 1>(c, c) l, r = Split<axis = 1, num_outputs = 2>(a) "
        "m = Mul(l, r) p = Pad(m, pads) s = Slice(p, zero, eight, rows) "
        "z = Resize(s, , twice)" + TAIL.format("z"),
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
        + TAIL.format("r"),
        {"c": (1, (64 / 30,)), "r": (1, (64 / 30,))},
        "(float[N,2,64] x) => (float[N,5] y)",
    ),
    Walk(
        "volumes",
        "w = RandomNormal<shape = [8, 1, 1, 2, 2]>() c = Conv<strides = [1, 2, 2]>(x, w)"
        + TAIL.format("c"),
        {"c": (1, (1, 2, 2))},
        "(float[N,1,4,8,8] x) => (float[N,5] y)",
    ),
    Walk(
        "colours taken apart and joined again",
        "a = Gather<axis = 1>(x, i) b = Unsqueeze(a, one) d = Gather<axis = 1>(x, i) "
        "e = Unsqueeze(d, one) h = Concat<axis = 1>(b, e, b) "
        "c = Conv<strides = [2, 2]>(h, W1)" + TAIL.format("c"),
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
        f"c = {CONV}(x, W1) other = Relu(c)" + TAIL.format("c"),
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
    f"d2 = DequantizeLinear(p, s, z) m = {CONV}(d2, W2) u = Neg(m) q3 = QuantizeLinear(m, s, z) "
    "d3 = DequantizeLinear(q3, s, z) v = Add(u, d3)" + DENSE.format("v"),
    initializers=QUANT,
)


def test_a_quantised_value_is_listed_once_under_its_float_name() -> None:
    assert list(listed(find_feature_maps(QDQ))) == ["c", "r", "k", "a", "p", "m", "u", "v"]


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
        ("1", "d1", "q1", "r"),
    ],
)
def test_resolve_quantised(name: str, tensor: str, gradient_at: str, feature_map: str) -> None:
    assert resolve(QDQ, name) == Resolved(name, tensor, gradient_at, feature_map)


def named(names: dict[str, str], scopes: dict[str, str] | None = None) -> Graph:
    """A chain of convolutions and ReLUs whose nodes carry names or exporter metadata."""
    steps, last = [], "x"
    for i, tensor in enumerate([*names, *(scopes or {})]):
        steps.append(f"{tensor} = {CONV}({last}, {'W2' if i else 'W1'})")
        last = tensor
    model = graph(" ".join(steps) + DENSE.format(last)).export()
    for node in model.graph.node:
        node.name = names.get(node.output[0], node.name)
        if scopes and node.output[0] in scopes:
            entry = scopes[node.output[0]]
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=entry)
    return Graph(model)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/layer4/layer4.1/conv2/Conv", "layer4.1.conv2"),
        ("/features/features.11/block/block.1/block.1.2/HardSwish", "features.11.block.1.2"),
        ("/Relu", ""),
        ("MobilenetV2/expanded_conv_3/expand/Relu6", "MobilenetV2/expanded_conv_3/expand"),
        ("MobilenetV2/Conv_1/Relu6;MobilenetV2/Conv_1/add_fold", "MobilenetV2/Conv_1"),
        ("Convolution28", ""),
    ],
)
def test_path_from_the_node_name(name: str, path: str) -> None:
    assert find_feature_maps(named({"a": name}))[0].path == path


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        ("['', 'layer4', 'layer4.1', 'layer4.1.relu', 'relu_16']", "layer4.1.relu"),
        ("['', 'layer4', 'layer4.1', 'add_407']", "layer4.1"),
        ("['', 'relu_120']", ""),
        ("not a list", ""),
        ("{1: 2}", ""),
    ],
)
def test_path_from_the_metadata(scopes: str, path: str) -> None:
    assert find_feature_maps(named({}, {"a": scopes}))[0].path == path


def test_second_call_of_a_module_shares_its_path() -> None:
    maps = find_feature_maps(
        named({"a": "/b/relu/Relu", "c": "/b/relu_1/Relu", "d": "/b/conv_2/Conv"})
    )
    assert [m.path for m in maps] == ["b.relu", "b.relu", "b.conv_2"]


NAMED = {
    "a1": "/layer1/layer1.0/conv/Conv",
    "a2": "/layer1/layer1.0/relu/Relu",
    "a3": "/layer1/layer1.1/conv/Conv",
    "a4": "/layer10/conv/Conv",
    "a5": "/0/Conv",
}


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("layer1", "a3"),  # the last below it, and layer10 is not below it
        ("layer1.0", "a2"),
        ("layer1.0.conv", "a1"),
        ("a1", "a1"),
        ("-1", "a5"),
        ("-5", "a1"),
        ("0", "a5"),  # a path before an index
        ("1", "a2"),
        ("relu", "a2"),  # the end of one path only
        ("y", "y"),
        ("x", "x"),
    ],
)
def test_resolve_by_layer(name: str, tensor: str) -> None:
    assert resolve(named(NAMED), name).tensor == tensor


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("layer2", "'layer1"),
        ("conv", ""),
        ("7", ""),
        ("-6", ""),
        ("", ""),
        ("a6", "'a5'"),
    ],
)
def test_unknown_layer(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownTensorError, match="no layer or tensor") as caught:
        resolve(named(NAMED), name)
    assert suggestion in str(caught.value)


def test_a_weight_is_no_layer() -> None:
    assert QDQ.constant("s") is not None
    with pytest.raises(UnknownTensorError):
        resolve(QDQ, "s")


def summary(model: Graph) -> tuple[str, str, str, tuple[object, ...], object]:
    """Operator, tensor and path of the default layer, its shape behind the batch, its stride."""
    found = default(find_feature_maps(model))
    assert found is not None
    node = model.producer(found.tensor)
    assert node is not None and found.channel_axis == 1
    return node.op_type, found.tensor, found.path, found.shape[1:], found.stride


LIGHT = {
    "bvlc_alexnet": ("Relu", "r13", (256, 12, 12)),
    "densenet121": ("Relu", "r907", (1024, 7, 7)),
    "inception_v1": ("Concat", "r137", (1024, 6, 6)),
    "inception_v2": ("Concat", "r504", (1024, 7, 7)),
    "resnet50": ("Relu", "r171", (2048, 7, 7)),
    "shufflenet": ("Relu", "r198", (544, 7, 7)),
    "squeezenet": ("Concat", "r60", (512, 13, 13)),
    "vgg19": ("Relu", "r35", (512, 14, 14)),
    "zfnet512": ("Relu", "r13", (512, 12, 12)),
}


@pytest.mark.parametrize("name", LIGHT)
def test_default_of_the_light_models(name: str) -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    opened = open_canonical(onnx.load(folder / f"light_{name}.onnx"))
    operator, tensor, path, shape, stride = summary(opened)
    assert (operator, tensor, shape) == LIGHT[name]
    assert path == ""
    assert stride == tuple(_exact(224, size) for size in shape[1:])


ASSETS = {
    "mobilenet_v2_imagenet_qdq": ("Clip", "Relu6__90:0", "MobilenetV2/Conv_1", (1280, 7, 7)),
    "mobilenet_v2_imagenet_f32": ("Clip", "Relu6__90:0", "MobilenetV2/Conv_1", (1280, 7, 7)),
    "squeezenet1.1_imagenet_fp16": ("Concat", "fire9/concat_1", "fire9", (512, 13, 13)),
    "mnist_cntk": ("Relu", "ReLU114_Output_0", "", (16, 14, 14)),
    "cifar10_pytorch": ("Relu", "43", "", (24, 10, 10)),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", ASSETS)
def test_default_of_the_assets(name: str, shared: Path) -> None:
    opened = open_canonical(onnx.load(shared / "models" / f"{name}.onnx"))
    assert summary(opened)[:4] == ASSETS[name]


@pytest.mark.shared
def test_the_two_mobilenets_list_the_same_maps(shared: Path) -> None:
    names = ("mobilenet_v2_imagenet_qdq", "mobilenet_v2_imagenet_f32")
    quantised, plain = (
        find_feature_maps(open_canonical(onnx.load(shared / "models" / f"{name}.onnx")))
        for name in names
    )
    assert [(m.tensor, m.shape) for m in quantised] == [(m.tensor, m.shape) for m in plain]
    assert quantised[0].stride == (2, 2) and quantised[-1].stride == (32, 32)


@pytest.mark.shared
def test_quantised_mobilenet_is_read_behind_its_quantize_linear(shared: Path) -> None:
    path = shared / "models" / "mobilenet_v2_imagenet_qdq.onnx"
    opened = open_canonical(onnx.load(path))
    found = resolve(opened, "Conv_1")
    assert found.feature_map == "Relu6__90:0"
    for tensor, operator in (
        (found.tensor, "DequantizeLinear"),
        (found.gradient_at, "QuantizeLinear"),
    ):
        node = opened.producer(tensor)
        assert node is not None and node.op_type == operator
    assert resolve(opened, found.gradient_at).tensor == found.tensor


def _exact(large: int, small: object) -> int | float:
    assert isinstance(small, int)
    return large // small if large % small == 0 else large / small


TORCHVISION = {
    "alexnet": ("Relu", "features.11", (256, 13, 13)),
    "vgg11": ("Relu", "features.19", (512, 14, 14)),
    "resnet18": ("Relu", "layer4.1.relu", (512, 7, 7)),
    "resnext50_32x4d": ("Relu", "layer4.2.relu", (2048, 7, 7)),
    "wide_resnet50_2": ("Relu", "layer4.2.relu", (2048, 7, 7)),
    "squeezenet1_0": ("Concat", "features.12", (512, 13, 13)),
    "squeezenet1_1": ("Concat", "features.12", (512, 13, 13)),
    "densenet121": ("Relu", "", (1024, 7, 7)),
    "googlenet": ("Concat", "inception5b", (1024, 7, 7)),
    "googlenet_transform": ("Concat", "inception5b", (1024, 7, 7)),
    "inception_v3": ("Concat", "Mixed_7c", (2048, 8, 8)),
    "shufflenet_v2_x0_5": ("Relu", "conv5.2", (1024, 7, 7)),
    "mobilenet_v2": ("Clip", "features.18.2", (1280, 7, 7)),
    "mobilenet_v3_small": ("HardSwish", "features.12.2", (576, 7, 7)),
    "mnasnet0_5": ("Relu", "layers.16", (1280, 7, 7)),
    "efficientnet_b0": ("Mul", "features.8.2", (1280, 7, 7)),
    "regnet_y_400mf": ("Relu", "trunk_output.block4.block4-5.activation", (440, 7, 7)),
    "convnext_tiny": ("Add", "features.7.2", (768, 7, 7)),
}


@pytest.mark.oracles
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "exporter"),
    [(f, "dynamo") for f in FAMILIES] + [(f, "torchscript") for f in TORCHSCRIPT],
)
def test_default_of_the_torchvision_families(family: str, exporter: str, tmp_path: Path) -> None:
    from tests.oracles.torch_export import export
    from tests.oracles.torch_models import FAMILIES as NETWORKS

    network = NETWORKS[family].build().eval()
    size = NETWORKS[family].size
    opened = open_canonical(export(network, tmp_path / "net.onnx", size, exporter))
    operator, tensor, path, shape, stride = summary(opened)
    assert (operator, path, shape) == TORCHVISION[family]
    assert stride == tuple(_exact(size, small) for small in shape[1:])
    if path:
        assert resolve(opened, path.split(".")[0]).tensor == tensor or family in (
            "alexnet",
            "vgg11",
        )
