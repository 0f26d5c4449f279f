"""The default layer: by hand-written corner, and family by family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from graph_rewrites.canonical import open_canonical
from graph_rewrites.graph import Graph
from graph_rewrites.layers import find_feature_maps, resolve
from tests.oracles.families import FAMILIES, TORCHSCRIPT

from .test_layers import CONV, DENSE, HALF, default, graph
from .test_quantized import QuantType, quantised


@dataclass(frozen=True)
class Head:
    """What follows the picture, and the default layer of it (None if none fits)."""

    name: str
    body: str
    default: str | None
    initializers: str = ""


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
        "what also feeds other features is passed over",
        f"c = {CONV}(x, W1) q = {HALF}(c) k = {CONV}(q, W2) a = GlobalAveragePool(k) p = {HALF}(c) "
        "b = GlobalAveragePool(p) s = Add(a, b) f = Flatten(s) y = MatMul(f, D8)",
        "p",
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
        "two classifiers, stacked and averaged (CrossViT)",
        f"c = {CONV}(x, W1) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) a = MatMul(f, D8) "
        "b = Sigmoid(a) u = Unsqueeze(a, one) v = Unsqueeze(b, one) s = Concat<axis = 1>(u, v) "
        "y = ReduceMean<keepdims = 0>(s, one)",
        "r",
        "<int64[1] one = {1}>",
    ),
    Head(
        "class maps added to a pooled classifier (VOLO)",
        f"c = {CONV}(x, W1) r = Relu(c) k = Conv(r, W5) m = GlobalMaxPool(k) f = Flatten(m) "
        "g = GlobalAveragePool(r) h = Flatten(g) z = MatMul(h, D8) y = Add(z, f)",
        "r",
    ),
    Head(
        "windows are no maps, what is made of them is (MaxViT)",
        f"c = {CONV}(x, W1) t = Transpose<perm = [0, 2, 3, 1]>(c) w = Reshape(t, cells) "
        "l = LayerNormalization(w, N8) a = Add(w, l) b = Reshape(a, whole) "
        "m = ReduceMean<keepdims = 0>(b, hw) y = MatMul(m, D8)",
        "b",
        "<int64[4] cells = {0, 1, 256, 8}, int64[4] whole = {0, 16, 16, 8}, int64[2] hw = {1, 2}>",
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


def test_default_of_a_quantised_net_whose_relus_are_folded(tmp_path: Path) -> None:
    opened = open_canonical(quantised(tmp_path, QuantType.QUInt8))
    found = default(find_feature_maps(opened))
    assert found is not None and found.shape[1:] == (16, 16, 16)
    place = resolve(opened, found.tensor)
    behind = opened.producer(place.tensor)
    assert behind is not None and behind.op_type == "DequantizeLinear"
    readers = opened.consumers(place.tensor)
    assert [node.op_type for node in readers] == ["GlobalAveragePool"]


@pytest.mark.shared
def test_the_two_mobilenets_list_the_same_maps_outside_integer_kernels(shared: Path) -> None:
    names = ("mobilenet_v2_imagenet_qdq", "mobilenet_v2_imagenet_f32")
    quantised, plain = (
        find_feature_maps(open_canonical(onnx.load(shared / "models" / f"{name}.onnx")))
        for name in names
    )
    shared_maps = {m.tensor: m.shape for m in quantised}
    inside_kernels = [m for m in plain if m.tensor not in shared_maps]
    assert list(shared_maps.items()) == [
        (m.tensor, m.shape) for m in plain if m.tensor in shared_maps
    ]
    assert len(inside_kernels) == 35  # a convolution's result in front of its ReLU6
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
    from tests.oracles.torch_models import NETWORKS

    network = NETWORKS[family].build().eval()
    size = NETWORKS[family].size
    file = tmp_path / "net.onnx"
    opened = open_canonical(export(network, file, size, exporter))
    file.unlink()  # half a gigabyte for a VGG
    operator, tensor, path, shape, stride = summary(opened)
    assert (operator, path, shape) == TORCHVISION[family]
    assert stride == tuple(_exact(size, small) for small in shape[1:])
    if path:
        assert resolve(opened, path).tensor == tensor
