"""`explanation_model`: forward, backward and map arithmetic in one ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from graph_rewrites.canonical import open_canonical
from graph_rewrites.emit import Emitter
from graph_rewrites.errors import ModelError, UnknownTensorError
from graph_rewrites.explained import find_explained
from graph_rewrites.graph import Graph
from graph_rewrites.heads.cam import grad_cam, spread, upsample
from graph_rewrites.heads.methods import METHODS
from graph_rewrites.heads.objectives import publish
from graph_rewrites.heads.picture import find_picture
from graph_rewrites.heads.targets import Selection, select_targets
from graph_rewrites.layers import FeatureMap, find_feature_maps, resolve
from graph_rewrites.layouts import Picture
from graph_rewrites.quantized import dequantized
from graph_rewrites.reverse import Sweep
from graph_rewrites.rules import DEFAULT_RULES, RuleTable
from graph_rewrites.scores import Scores
from graph_rewrites.stamps import PREFIX_KEY, refuse_lowered
from graph_rewrites.tensor_type import Dim, TensorType


def explanation_model(
    model: onnx.ModelProto,
    method: str | Sequence[str] = "grad_cam",
    layer: str | Sequence[str] | None = None,
    targets: int = 1,
    other_activations: str = "gradient",
    rules: RuleTable = DEFAULT_RULES,
    *,
    of: str | None = None,
    objective: str = "class",
) -> onnx.ModelProto:
    """Build the model that explains `model`.

    Args:
        model: any CNN; canonicalised with a free batch where it is not canonical yet.
        method: a name in `METHODS`, or several: one forward pass, all maps.
        layer: the layer of the CAM methods (tensor name or layer path), or several; by default the
            last feature maps before the classifier. The other methods have no use for it.
        targets: T, how many classes each image is explained for, over one forward pass.
        other_activations: see `differentiate`.
        rules: the rule table.
        of: what is explained: an output, a tensor inside the network, or a layer path; by default
            the class scores.
        objective: the number that is taken of it, a name in `OBJECTIVES`. "mask" needs one more
            input, `mask` (float32, (N, H, W) or (N, T, H, W)), "box" one more, `box` (int64, (N,)
            or (N, T); -1 = the best); "similarity" has `reference` (float32, (N, D) or (N, T, D))
            in place of `target`. `heads/objectives.py` says what each of them means. An input whose
            name the network uses already is called `asked/<name>`.

    Returns:
        A model with one more input, `target` (int64, (N,) or (N, T); -1 = arg-max), and these
        outputs besides the original ones: `map/<method>`, float32, (N, H, W), or the picture's own
        layout for the signed pixel maps; for the CAM methods also `map/<method>/raw` on the
        layer's grid; with several layers `map/<method>/<layer>` and `map/<method>/<layer>/raw`;
        `target/used` (int64) and `score/used` (float32), (N,). With T > 1 every one of them has
        the axis T behind N.

    Raises:
        GraphRewriteError: see `differentiate`; also where no layer fits a CAM method.
        ValueError: a method or layer is named twice or none at all, `targets` is below 1, or the
            objective is unknown.
    """
    names = _names(method, "method")
    unknown = next((name for name in names if name not in METHODS), None)
    if unknown is not None:
        raise UnknownTensorError.of("method", unknown, METHODS)
    graph = open_canonical(model)
    refuse_lowered(graph.metadata)
    scores = find_explained(graph, of, objective)
    picture = find_picture(graph, scores.tensor)
    reads_layers = any(METHODS[name].features for name in names)
    layers = _layers(graph, layer, scores) if reads_layers or layer is not None else []
    selection = select_targets(graph, scores, targets, objective, picture)
    maps = _Maps(graph, picture, selection, layers, scores.tensor)
    maps.sweep(names, other_activations, rules)
    for name in names:
        maps.emit(name)
    return graph.export()


@dataclass(frozen=True)
class _Layer:
    """A layer as the caller named it, its values and where its gradient is taken."""

    name: str
    values: str
    gradient_at: str
    feature_map: FeatureMap


class _Maps:
    """The sweeps and heads of one explanation model under construction."""

    def __init__(
        self,
        graph: Graph,
        picture: Picture,
        selection: Selection,
        layers: Sequence[_Layer],
        scores: str,
    ) -> None:
        self.graph = graph
        self.picture = picture
        self.selection = selection
        self.layers = layers
        self.scores = scores
        self.cotangents: dict[str, dict[str, str]] = {}
        self._grids: dict[str, str] = {}

    def sweep(self, names: Sequence[str], other_activations: str, rules: RuleTable) -> None:
        """Run each backward pass that the methods need, once."""
        wanted: dict[str, dict[str, str]] = {}
        for method in (METHODS[name] for name in names):
            if method.pixels:
                wanted.setdefault(method.relu, {})[self.picture.tensor] = self.picture.tensor
            if method.features:
                at = {layer.name: layer.gradient_at for layer in self.layers}
                wanted.setdefault("gradient", {}).update(at)
        for relu, wrt in wanted.items():
            sweep = Sweep(self.graph, relu, relu, other_activations, rules, self.selection.rows)
            self.cotangents[relu] = sweep.pull_back({self.scores: self.selection.seed}, wrt)
            sweep.finish(self.cotangents[relu].values())

    def emit(self, name: str) -> None:
        """Emit and publish the maps of one method."""
        method = METHODS[name]
        op = self._emitter(name)
        pixels = self.cotangents[method.relu][self.picture.tensor] if method.pixels else ""
        if not method.features:
            axis = self.picture.channel_axis
            values = pixels if method.signed else op.ReduceMax(op.Abs(pixels), [axis], keepdims=0)
            rank = len(self.picture.shape) - (not method.signed)
            self._publish(op, f"map/{name}", self._valid(op, values, rank), signed=method.signed)
        for layer in self.layers if method.features else ():
            several = len(self.layers) > 1
            output = f"map/{name}/{layer.name}" if several else f"map/{name}"
            grid = self._grid(layer)
            values = upsample(op, grid, self.picture.tensor, self.picture.spatial_axes)
            if method.pixels:
                values = op.Mul(pixels, op.Unsqueeze(values, [self.picture.channel_axis]))
            self._publish(op, output, values, signed=method.signed)
            self._publish_grid(op, f"{output}/raw", grid, layer)

    def _grid(self, layer: _Layer) -> str:
        """The layer's Grad-CAM on its own grid, shared by the methods that need it.

        It is NaN where the target is none, and whatever is made of it is then.
        """
        if layer.name not in self._grids:
            op = self._emitter(f"cam/{layer.name}")
            features = dequantized(op, layer.values)
            if self.selection.rows:
                features = op.Gather(features, self.selection.rows.index, axis=0)
            cotangent = self.cotangents["gradient"][layer.gradient_at]
            shape, axis = layer.feature_map.spread
            features = spread(op, features, layer.feature_map)
            cotangent = spread(op, cotangent, layer.feature_map)
            grid = grad_cam(op, features, cotangent, axis, len(shape))
            self._grids[layer.name] = self._valid(op, grid, len(shape) - 1)
        return self._grids[layer.name]

    def _emitter(self, label: str) -> Emitter:
        return Emitter(self.graph, f"heads/{label}", {PREFIX_KEY: f"map/{label}"})

    def _publish_grid(self, op: Emitter, name: str, grid: str, layer: _Layer) -> None:
        shape, axis = layer.feature_map.spread
        dims = [d for i, d in enumerate(shape) if i not in (0, axis)]
        self._write(op, name, grid, dims)

    def _publish(self, op: Emitter, name: str, values: str, *, signed: bool) -> None:
        shape = self.picture.shape
        dims = shape[1:] if signed else [shape[axis] for axis in self.picture.spatial_axes]
        self._write(op, name, values, list(dims))

    def _valid(self, op: Emitter, values: str, rank: int) -> str:
        """Rows (R, …) with `rank` dimensions; NaN where the target is none."""
        valid = op.Reshape(self.selection.valid, [-1] + [1] * (rank - 1))
        return str(op.Where(valid, values, float("nan")))

    def _write(self, op: Emitter, name: str, values: str, dims: Sequence[Dim]) -> None:
        """Publish rows (R, *dims) as (N, *dims) or (N, T, *dims)."""
        chosen = self.selection
        shape = (chosen.batch, *dims)
        if chosen.targets > 1:
            shape = (chosen.batch, chosen.targets, *dims)
            tail = op.Shape(values, start=1)
            values = op.Reshape(
                values, op.Concat(op.constant([-1, chosen.targets], "int64"), tail, axis=0)
            )
        publish(op, name, values, TensorType(TensorProto.FLOAT, shape))


def _names(given: str | Sequence[str], what: str) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{what} must be a name or a sequence of different names, not {given!r}")
    return names


def _layers(graph: Graph, layer: str | Sequence[str] | None, scores: Scores) -> list[_Layer]:
    maps = find_feature_maps(graph, scores)
    if layer is None:
        default = next((m for m in maps if m.default), None)
        if default is None:
            raise ModelError(
                "no feature map with a height and width leads to the scores; "
                "name one with `layer`, or use a method without a layer such as saliency"
            )
        names = [default.tensor]
    else:
        names = _names(layer, "layer")
    found = []
    for name in names:
        place = resolve(graph, name, maps)
        feature_map = next((m for m in maps if m.tensor == place.feature_map), None)
        if feature_map is None:
            raise UnknownTensorError.of("feature map", name, [m.tensor for m in maps])
        found.append(_Layer(name, place.tensor, place.gradient_at, feature_map))
    return found
