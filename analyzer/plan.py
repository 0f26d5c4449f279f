"""One request for maps: which methods, of which layers, for how many targets."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

import graph_rewrites as gr
from analyzer.errors import UsageError, nearest
from analyzer.methods import METHODS, Method
from analyzer.rewriting import rewriting

Methods = str | tuple[str, ...]
OTHER_ACTIVATIONS = ("gradient", "positive", "strict")


@dataclass(frozen=True)
class MapOutput:
    """One map among the outputs of an explanation model.

    Attributes:
        key: "<method>", or "<method>/<layer>" where there are several layers.
        method: The method.
        layer: The layer as asked for; None for the default, or where none is needed.
    """

    key: str
    method: Method
    layer: str | None

    @property
    def values(self) -> str:
        """The output that holds the map."""
        return f"map/{self.key}"

    @property
    def grid(self) -> str:
        """The output that holds a CAM's own grid; absent for other methods."""
        return f"map/{self.key}/raw"


@dataclass(frozen=True)
class Plan:
    """A checked request; equal plans share one explanation model."""

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    targets: int
    other_activations: str
    several: bool
    output: str | None = None
    objective: str = "class"

    @classmethod
    def of(
        cls,
        method: Methods,
        layer: str | tuple[str, ...] | None,
        targets: int,
        other_activations: str,
        output: str | None = None,
        objective: str = "class",
    ) -> "Plan":
        """Check a request.

        Raises:
            UsageError: An unknown method or policy, or a layer for methods that have none.
        """
        methods = (method,) if isinstance(method, str) else tuple(method)
        layers = () if layer is None else (layer,) if isinstance(layer, str) else tuple(layer)
        for name in methods:
            if name not in METHODS:
                known = ", ".join(METHODS)
                raise UsageError(f"unknown method {name!r}; known: {known}{nearest(name, METHODS)}")
        if not methods or len(set(methods)) != len(methods) or len(set(layers)) != len(layers):
            raise UsageError("give at least one method, and each method and layer once")
        if layers and not any(METHODS[name].needs_layer for name in methods):
            raise UsageError(f"{', '.join(methods)} takes no layer; leave it out")
        if other_activations not in OTHER_ACTIVATIONS:
            raise UsageError(
                f"unknown policy {other_activations!r} for other activations; "
                f"known: {', '.join(OTHER_ACTIVATIONS)}"
            )
        if targets < 1:
            raise UsageError(f"targets = {targets}; at least one target is needed")
        several = not isinstance(method, str) or len(layers) > 1
        return cls(methods, layers, targets, other_activations, several, output, objective)

    def build(self, model: onnx.ModelProto, name: str) -> onnx.ModelProto:
        """The explanation model.

        Raises:
            UsageError: A layer that the model does not have.
            ModelRejectedError: The model cannot be differentiated.
        """
        layers = self.layers if len(self.layers) > 1 else next(iter(self.layers), None)
        with rewriting(name):
            return gr.explanation_model(
                model,
                method=self.methods if len(self.methods) > 1 else self.methods[0],
                layer=layers,
                targets=self.targets,
                other_activations=self.other_activations,
                of=self.output,
                objective=self.objective,
            )

    def maps(self) -> Iterator[MapOutput]:
        """Every map of the explanation model."""
        for name in self.methods:
            method = METHODS[name]
            if not method.needs_layer:
                yield MapOutput(name, method, None)
            elif len(self.layers) > 1:
                yield from (MapOutput(f"{name}/{layer}", method, layer) for layer in self.layers)
            else:
                yield MapOutput(name, method, next(iter(self.layers), None))
