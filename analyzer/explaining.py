"""A plan brought to life: the explanation model in a session, and its outputs as explanations."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import graph_rewrites as gr
from analyzer import provenance
from analyzer.batching import Batching, run_all
from analyzer.errors import ExplanationWarning
from analyzer.explanation import Explanation
from analyzer.image_input import ImageInput
from analyzer.intake import Intake
from analyzer.methods import METHODS
from analyzer.plan import MapOutput, Plan
from analyzer.session import Session
from analyzer.targets import Classes, Targets

Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Context:
    """What every explanation of one model shares.

    Attributes:
        image: The model's input.
        classes: How many classes, and their names.
        outputs: Names of the model's own outputs.
        default_layer: Path of the layer taken where none is named.
        channels: The order of the input's channels: "RGB", "BGR", "L", or "".
        record: The provenance's parts that do not depend on the call.
        quantised: The file quantises somewhere.
        widened: The file holds 16-bit floats.
    """

    image: ImageInput
    classes: Classes
    outputs: tuple[str, ...]
    default_layer: str | None
    channels: str
    record: Mapping[str, Any]
    quantised: bool
    widened: bool


class Explainer:
    """One explanation model, loaded; built once for each plan."""

    def __init__(self, plan: Plan, model: onnx.ModelProto, session: Session) -> None:
        """Keep the session, and the model to read its coverage from."""
        self.plan = plan
        self.session = session
        self._model = model
        self._coverages: dict[str, gr.Coverage] = {}

    def explain(
        self,
        intake: Intake,
        targets: Targets,
        batching: Batching,
        size: int | None,
        context: Context,
    ) -> dict[str, Explanation]:
        """Run the images and read the maps, by "<method>" or "<method>/<layer>"."""
        inputs = {context.image.name: intake.values, "target": targets}
        outputs = run_all(self.session, inputs, batching, size)
        explained = {}
        for item in self.plan.maps():
            explained[item.key] = self._read(item, outputs, intake, context, batching)
            _warn(explained[item.key])
        return explained

    def coverage(self, relu: str) -> gr.Coverage:
        """What the backward pass of one ReLU rule did at each activation."""
        if relu not in self._coverages:
            self._coverages[relu] = gr.coverage(self._model, prefix=relu)
        return self._coverages[relu]

    def _read(
        self,
        item: MapOutput,
        outputs: Outputs,
        intake: Intake,
        context: Context,
        batching: Batching,
    ) -> Explanation:
        method = item.method
        values = outputs[item.values]
        several = self.plan.targets > 1
        if method.signed and context.image.layout == "NHWC":
            values = np.ascontiguousarray(np.moveaxis(values, -1, -3))
        used = outputs["target/used"]
        rows = used.reshape(len(used), -1)
        return Explanation(
            values=values,
            axes="N" + "T" * several + "C" * method.signed + "HW",
            grid=outputs.get(item.grid),
            target=used,
            scores=outputs["score/used"],
            layer=(item.layer or context.default_layer) if method.needs_layer else None,
            method=method.name,
            coverage=self.coverage(method.relu),
            provenance=self._provenance(item, intake, context, batching),
            outputs={name: outputs[name] for name in context.outputs},
            labels=tuple(tuple(context.classes.label(int(i)) for i in row) for row in rows),
            pictures=intake.pictures,
            geometry=intake.geometry,
            signed=method.signed,
            channels=context.channels,
            listed=intake.listed,
        )

    def _provenance(
        self, item: MapOutput, intake: Intake, context: Context, batching: Batching
    ) -> dict[str, Any]:
        record = dict(context.record)
        if not intake.prepared_here:
            record["preprocess"] = {"origin": "preprocessed by the caller"}
        images = [
            provenance.image_facts(picture, geometry)
            for picture, geometry in zip(intake.pictures, intake.geometry, strict=True)
        ]
        return {
            **record,
            "versions": dict(provenance.versions()),
            "runtime": dict(self.session.settings),
            "batch": batching.reason,
            "layer": (item.layer or context.default_layer) if item.method.needs_layer else None,
            "conventions": provenance.conventions(
                item.method, self.plan.other_activations, context.quantised, context.widened
            ),
            "images": images,
        }


def _warn(explanation: Explanation) -> None:
    """Say what a reader would otherwise take for a result."""
    for problem in _problems(explanation):
        warnings.warn(problem, ExplanationWarning, stacklevel=4)


def _problems(explanation: Explanation) -> Iterator[str]:
    method, coverage = explanation.method, explanation.coverage
    relu = METHODS[method].relu
    if relu != "gradient" and coverage is not None:
        followed = any(activation.rule == relu for activation in coverage.activations)
        if not followed:
            yield (
                f"{method}: no ReLU lies between the picture and the score, "
                f"so the {relu} rule changed nothing"
            )
    flat = explanation.values.reshape(len(explanation), explanation.targets, -1)
    for name, labels, maps in zip(explanation.names, explanation.labels, flat, strict=True):
        for label, values in zip(labels, maps, strict=True):
            if not np.isfinite(values).all():
                yield f"{name}: the {method} map of {label} holds values that are not finite"
            elif not values.any():
                yield f"{name}: the {method} map of {label} is zero everywhere"
