"""Layers are found under the names that exporters leave in a file."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from graph_rewrites.errors import UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.layers import find_feature_maps, resolve

from .test_layers import CONV, DENSE, graph


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


KERAS = {  # as tf2onnx names the nodes of a functional Keras 3 model
    "stem": "StatefulPartitionedCall/resnet50_1/stem_bn_1/batchnorm/mul_1",
    "act": "StatefulPartitionedCall/resnet50_1/stem_relu_1/Relu6",
    "conv": "StatefulPartitionedCall/resnet50_1/conv2d_1/convolution",
    "other": "StatefulPartitionedCall/resnet50_1/conv2d_1_1/convolution",
    "wide": "StatefulPartitionedCall/resnet50_1/sep_1/separable_conv2d/depthwise",
    "out": "StatefulPartitionedCall/resnet50_1/conv5_block3_out_1/Relu",
}
NESTED = {
    "a": "sequential_1/resnet50_1/conv_1/Relu",
    "b": "sequential_1/resnet50_1/block_out_2/Relu",
    "c": "sequential_1/dense_1/BiasAdd",
}
COUNTED_BY_NAME = {
    "a": "model_1/conv2d_1/Relu",
    "b": "model_1/conv2d_2/Relu",
    "c": "model_1/activation_2/Relu",
}
UNCOUNTED = {"a": "resnet50/conv1_bn/batchnorm/mul_1", "b": "resnet50/conv5_block3_out/Relu"}


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (
            KERAS,
            [
                *("stem_bn", "stem_relu", "conv2d", "conv2d_1", "sep/separable_conv2d"),
                "conv5_block3_out",
            ],
        ),
        (NESTED, ["resnet50/conv", "resnet50/block_out", "dense"]),
        (COUNTED_BY_NAME, ["conv2d_1", "conv2d_2", "activation_2"]),
        (UNCOUNTED, ["conv1_bn", "conv5_block3_out"]),
    ],
    ids=["Keras 3", "nested", "counted by name", "Keras 2"],
)
def test_paths_end_in_the_names_of_keras_layers(names: dict[str, str], paths: list[str]) -> None:
    model = named(names)
    assert [m.path.partition("/")[2] for m in find_feature_maps(model)] == paths
    for tensor, path in zip(names, paths, strict=True):
        assert resolve(model, path).tensor == tensor


def test_a_name_that_the_path_lost_with_the_count_still_resolves() -> None:
    model = named({"a": "model_1/conv_1/Relu", "b": "model_1/activation_1/Relu"})
    assert [m.path for m in find_feature_maps(model)] == ["model/conv", "model/activation"]
    assert resolve(model, "activation").tensor == resolve(model, "activation_1").tensor == "b"


MERGED = {
    "tf2onnx": ("net/block_bn/batchnorm/mul_1", "net/block_conv/convolution/merged_input:0"),
    "torch": ("", "net.block_conv.weight"),
}


@pytest.mark.parametrize("exporter", MERGED)
def test_a_convolution_merged_with_its_normalisation_resolves_by_its_weights(exporter: str) -> None:
    node, weight = MERGED[exporter]
    model = named({"a": node, "b": "net/out/Relu"}).export()
    model.graph.node[-5].input[1] = weight  # the first convolution
    weights = np.zeros((8, 3, 3, 3), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, weight))
    opened = Graph(model)
    assert resolve(opened, "block_conv").tensor == "a"
    with pytest.raises(UnknownTensorError):
        resolve(opened, "block")


def test_where_no_name_is_near_the_error_says_what_lists_them() -> None:
    with pytest.raises(UnknownTensorError, match=r"`onnx-analyzer inspect` .* list the layers"):
        resolve(named(NAMED), "quite another thing")


def test_what_a_layer_is_called_and_counted_as_finds_it_again() -> None:
    model = named({**NAMED, "a6": "/layer1/layer1.0/relu_1/Relu", "a7": "/g/Conv"})
    maps = find_feature_maps(model)
    assert [m.index for m in maps] == [-7, 1, 2, 3, 4, 5, 6]  # a path is called "0"
    assert [m.name for m in maps] == [
        "layer1.0.conv",
        "a2",
        "layer1.1.conv",
        "layer10.conv",
        "0",
        "layer1.0.relu",
        "a7",  # a tensor is called "g"
    ]
    for found in maps:
        for name in (str(found.index), found.name):
            assert resolve(model, name, maps).feature_map == found.tensor


@pytest.mark.parametrize("name", ["5", "-6", "500"])
def test_an_index_out_of_range_says_the_range(name: str) -> None:
    with pytest.raises(UnknownTensorError, match="its layers are -5 to 4"):
        resolve(named(NAMED), name)


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
