"""Names of layers that people know: the module path that the exporter left in the file.

PyTorch's exporters write the path of the module ("layer4.1.relu"), TensorFlow's converters the
scopes of the names ("resnet50/conv5_block3_out"), whose last one is the Keras layer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

from graph_rewrites.layouts import ACTIVATIONS
from graph_rewrites.node import Node

_SCOPES = "pkg.torch.onnx.name_scopes"
_REPEATED = re.compile(r"(.+)_\d+")
_COUNT = re.compile(r"_\d+$")
_CALLS = ("StatefulPartitionedCall/", "PartitionedCall/")
_INSIDE_A_LAYER = "/batchnorm"
_WITH_WEIGHTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


def module_paths(nodes: Iterable[Node]) -> dict[str, str]:
    """The module path of each of the sorted nodes, by its first output; "" where the file has none.

    PyTorch's exporter writes the path into the metadata ("layer4.1.relu"), its older one into the
    node's name ("/layer4/layer4.1/relu_1/Relu"; the suffix counts the calls of one module and is
    dropped), TensorFlow's converters likewise ("MobilenetV2/Conv_1/Relu6"). An activation whose
    name tells nothing belongs to the layer in front of it.
    """
    paths: dict[str, str] = {}
    counted: list[str] = []
    scoped: list[str] = []
    for node in nodes:
        scopes = node.metadata.get(_SCOPES)
        name = (node.name or node.output).split(";")[0]  # TFLite joins the names of fused layers
        if scopes:
            path = _dynamo_path(scopes)
        elif name.startswith("/"):
            path = _torchscript_path(name)
            counted.append(node.output)
        elif "/" not in name and node.op_type in ACTIVATIONS:
            path = paths.get(node.input(0), "")
        else:
            path = _scoped_path(name)
            scoped.append(node.output)
        paths[node.output] = path
    known = set(paths.values())
    paths |= {tensor: _first_call(paths[tensor], known) for tensor in counted}
    return paths | _without_calls({tensor: paths[tensor] for tensor in scoped})


def written_paths(nodes: Iterable[Node]) -> dict[str, str]:
    """The scopes of the names of nodes as they are written, counts included, by first output."""
    return {node.output: _scoped_path(node.name) for node in nodes}


def weight_paths(nodes: Iterable[Node]) -> dict[str, str]:
    """The paths in the names of the weights of convolutions and dense layers, by first output.

    Where a converter merges a normalisation into a convolution, the node has the name of the
    former and only the weights still tell that of the latter.
    """
    paths: dict[str, str] = {}
    for node in nodes:
        weights = node.input(1) if node.op_type in _WITH_WEIGHTS else ""
        if node.constant(weights) is not None:
            module = weights.removesuffix(".weight")
            paths[node.output] = module if module != weights else _scoped_path(weights)
    return _without_calls({tensor: path for tensor, path in paths.items() if path})


def _dynamo_path(scopes: str) -> str:
    """The path in "['', 'layer4', 'layer4.1', 'add_407']"; the last entry is the operator."""
    try:
        entries = ast.literal_eval(scopes)
    except (ValueError, SyntaxError):
        return ""
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        return ""
    return next((entry for entry in reversed(entries[:-1]) if entry), "")


def _torchscript_path(name: str) -> str:
    """The path "features.4.conv.0" in "/features/features.4/conv/conv.0/Conv"."""
    path: list[str] = []
    for scope in name.split("/")[1:-1]:
        if path and scope.startswith(f"{path[-1]}."):
            path[-1] = scope  # a child of a Sequential repeats its parent's name
        else:
            path.append(scope)
    return ".".join(path)


def _scoped_path(name: str) -> str:
    """The path "resnet50/bn" in "StatefulPartitionedCall/resnet50/bn/batchnorm/mul_1"."""
    for call in _CALLS:
        name = name.removeprefix(call)
    return name.rpartition("/")[0].removesuffix(_INSIDE_A_LAYER)


def _without_calls(paths: Mapping[str, str]) -> dict[str, str]:
    """Keras 3 counts how often a model was called: "resnet50_1/conv5_block3_out_1".

    The counts are taken off where every scope has one, and no two become the same without it.
    """
    inside: dict[str, set[str]] = {}
    for path in paths.values():
        scopes = path.split("/") if path else []
        for i, scope in enumerate(scopes):
            inside.setdefault("/".join(scopes[:i]), set()).add(scope)

    def counted(outer: str) -> bool:
        bare = {_COUNT.sub("", scope) for scope in inside[outer]}
        return len(bare) == len(inside[outer]) and not any(map(_is_bare, inside[outer]))

    if not all(counted(outer) for outer in ("", *inside.get("", ())) if outer in inside):
        return dict(paths)
    found: dict[str, str] = {}
    for tensor, path in paths.items():
        scopes = path.split("/")
        for i in range(len(scopes)):
            if path and not counted("/".join(path.split("/")[:i])):
                break
            scopes[i] = _COUNT.sub("", scopes[i])
        found[tensor] = "/".join(scopes)
    return found


def _is_bare(scope: str) -> bool:
    return _COUNT.search(scope) is None


def _first_call(path: str, known: set[str]) -> str:
    """`path` without the count of a repeated call, where the first call is in the graph too."""
    repeated = _REPEATED.fullmatch(path)
    return repeated[1] if repeated and repeated[1] in known else path


def under(layer: str, paths: Mapping[str, str]) -> list[str]:
    """The keys of `paths` whose path is `layer` or lies under it, in order."""
    return [key for key, path in paths.items() if f"{path}/".startswith((f"{layer}.", f"{layer}/"))]


def within(layer: str, paths: Mapping[str, str]) -> list[str]:
    """The same for a path without its beginning ("Conv_1" for "MobilenetV2/Conv_1").

    Empty unless exactly one place in the network fits.
    """
    if not layer:
        return []
    places: dict[str, list[str]] = {}
    inner = re.compile(rf".*?[./]{re.escape(layer)}(?=$|[./])")
    for key, path in paths.items():
        place = inner.match(path)
        if place:
            places.setdefault(place[0], []).append(key)
    return next(iter(places.values())) if len(places) == 1 else []
