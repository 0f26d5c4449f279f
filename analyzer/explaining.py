"""A plan brought to life: the explanation model in a session, and its outputs as explanations."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

import graph_rewrites as gr
from analyzer import provenance
from analyzer.archive import slugs
from analyzer.batching import Batching, run_all
from analyzer.errors import ExplanationWarning, ModelRejectedError
from analyzer.explained import Explained
from analyzer.explanation import Explanation
from analyzer.image_input import ImageInput, asked_input, model_inputs
from analyzer.intake import Intake
from analyzer.methods import METHODS
from analyzer.plan import MapOutput, Plan
from analyzer.questions import Question
from analyzer.session import NodeTime
from analyzer.sources import external_data
from analyzer.specialized import SpecializedSession

Outputs = Mapping[str, npt.NDArray[Any]]

_KEPT: Final = 8
_KEPT_BYTES: Final = 2**30  # of weights; a session has them several times, laid out for its kernels
_PER_TARGET: Final = ("map/", "target/used", "score/used", "box/used")


@dataclass(frozen=True)
class Context:
    """What every explanation of one model shares.

    Attributes:
        image: The model's input.
        outputs: Names of the model's own outputs.
        channels: The order of the input's channels: "RGB", "BGR", "L", or "".
        record: The provenance's parts that do not depend on the call.
        quantised: The file quantises somewhere.
        widened: The file holds 16-bit floats.
    """

    image: ImageInput
    outputs: tuple[str, ...]
    channels: str
    record: Mapping[str, Any]
    quantised: bool
    widened: bool


class Explainer:
    """One explanation model, loaded; built once for each plan.

    Attributes:
        plan: What it was built for.
        explained: The tensor that is explained.
        session: What runs it.
        size: Bytes of its weights.
    """

    def __init__(
        self, plan: Plan, explained: Explained, model: onnx.ModelProto, session: SpecializedSession
    ) -> None:
        """Keep the session, and the model to read its coverage from."""
        self.plan = plan
        self.explained = explained
        self.session = session
        self._model = model
        self.size = sum(external_data.size_of(weight) for weight in model.graph.initializer)
        several = plan.layers if len(plan.layers) > 1 else ()
        self._marks = dict(zip(several, slugs(several, "layer"), strict=True))
        self._coverages: dict[str, gr.Coverage] = {}

    def explain(
        self,
        intake: Intake,
        question: Question,
        batching: Batching,
        size: int | None,
        context: Context,
    ) -> dict[str, Explanation]:
        """Run the images and read the maps, by "<method>" or "<method>/<layer>"."""
        question, inputs = self._inputs(intake, question, context)
        outputs = self._run(inputs, question, batching, size)
        explained = {}
        for item in self.plan.maps():
            explained[item.key] = self._read(item, outputs, intake, question, context, batching)
            _warn(explained[item.key])
        return explained

    def profile(
        self, intake: Intake, question: Question, batching: Batching, context: Context
    ) -> tuple[list[NodeTime], float]:
        """What the nodes took for the first image, and one run, in seconds."""
        _, inputs = self._inputs(intake, question, context)
        first = {name: values[:1].repeat(batching.fixed or 1, 0) for name, values in inputs.items()}
        return self.session.profile(first)

    def _inputs(
        self, intake: Intake, question: Question, context: Context
    ) -> tuple[Question, dict[str, npt.NDArray[Any]]]:
        """The question, its inputs called as the model calls them, and all inputs."""
        feeds = {asked_input(self._model, name): values for name, values in question.feeds.items()}
        return replace(question, feeds=feeds), {context.image.name: intake.values, **feeds}

    def embed(
        self, intake: Intake, batching: Batching, size: int | None, context: Context
    ) -> npt.NDArray[np.float32]:
        """The embeddings (N, D) of images, under the objective "similarity"."""
        name = asked_input(self._model, "reference")
        declared = next(i for i in model_inputs(self._model) if i.name == name)
        sizes = [dim for dim in (declared.shape or ())[1:] if isinstance(dim, int)]
        anything = np.ones((len(intake.values), *sizes), np.float32)
        inputs = {context.image.name: intake.values, name: anything}
        found: npt.NDArray[np.float32] = run_all(self.session, inputs, batching, size)[
            "similarity/embedding"
        ]
        return found

    def _run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        question: Question,
        batching: Batching,
        size: int | None,
    ) -> Outputs:
        """All targets from one forward pass; one run for each where the batch is fixed."""
        if question.targets == self.plan.targets:
            return run_all(self.session, inputs, batching, size)
        runs = [
            run_all(
                self.session,
                {n: a[:, t] if n in question.feeds else a for n, a in inputs.items()},
                batching,
                size,
            )
            for t in range(question.targets)
        ]
        own = set(inputs) | {o for o in runs[0] if not o.startswith(_PER_TARGET)}
        return {
            name: array if name in own else np.stack([run[name] for run in runs], axis=1)
            for name, array in runs[0].items()
        }

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
        question: Question,
        context: Context,
        batching: Batching,
    ) -> Explanation:
        method = item.method
        values = outputs[item.values]
        several = question.targets > 1
        if method.signed and context.image.layout == "NHWC":
            values = np.ascontiguousarray(np.moveaxis(values, -1, -3))
        used, boxes = outputs["target/used"], outputs.get("box/used")
        return Explanation(
            values=values,
            axes="N" + "T" * several + "C" * method.signed + "HW",
            grid=outputs.get(item.grid),
            target=used,
            scores=outputs["score/used"],
            layer=self._layer(item),
            method=method.name,
            coverage=self.coverage(method.relu),
            provenance=self._provenance(item, outputs, intake, question, context, batching),
            outputs={name: outputs[name] for name in context.outputs if name in outputs},
            labels=question.labels(self.explained.classes, used, boxes),
            pictures=intake.pictures,
            geometry=intake.geometry,
            signed=method.signed,
            channels=context.channels,
            listed=intake.listed,
            mark=self._marks.get(item.layer or "", ""),
        )

    def _layer(self, item: MapOutput) -> str | None:
        return (item.layer or self.explained.default_layer) if item.method.needs_layer else None

    def _provenance(
        self,
        item: MapOutput,
        outputs: Outputs,
        intake: Intake,
        question: Question,
        context: Context,
        batching: Batching,
    ) -> dict[str, Any]:
        record = dict(context.record)
        if not intake.prepared_here:
            record["preprocess"] = {"origin": "preprocessed by the caller"}
        images = [
            provenance.image_facts(picture, geometry)
            for picture, geometry in zip(intake.pictures, intake.geometry, strict=True)
        ]
        for image, targets in zip(images, question.described(outputs), strict=True):
            image["targets"] = targets
        return {
            **record,
            "model": {**record["model"], "scores": provenance.score_facts(self.explained)},
            "versions": dict(provenance.versions()),
            "runtime": dict(self.session.settings),
            "batch": batching.reason,
            "layer": self._layer(item),
            "conventions": provenance.conventions(
                item.method,
                self.plan.other_activations,
                self.explained.objective,
                context.quantised,
                context.widened,
            ),
            "images": images,
        }


class Explainers:
    """The explanation models in use; the least recently used one makes room for another."""

    def __init__(self) -> None:
        """Keep none yet."""
        self._kept: OrderedDict[Plan, Explainer] = OrderedDict()

    def get(self, plan: Plan, build: Callable[[Plan], Explainer]) -> Explainer:
        """The explainer of a plan, built where it is not kept.

        Where several targets of an image cannot share a forward pass, it is that of one target.
        """
        if plan not in self._kept:
            self._kept[plan] = self._build(plan, build)
            while len(self._kept) > 1 and self._too_many():
                self._kept.popitem(last=False)
        self._kept.move_to_end(plan)
        return self._kept[plan]

    def _too_many(self) -> bool:
        size = sum(explainer.size for explainer in self._kept.values())
        return len(self._kept) > _KEPT or size > _KEPT_BYTES

    def _build(self, plan: Plan, build: Callable[[Plan], Explainer]) -> Explainer:
        try:
            return build(plan)
        except ModelRejectedError as error:
            if not isinstance(error.__cause__, gr.SeveralTargetsError):
                raise
            return self.get(replace(plan, targets=1), build)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


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
