"""Analyzer: one model, ready to be asked why it says what it says."""

import time
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import onnx

import graph_rewrites as gr
from analyzer import provenance
from analyzer.artefact import is_quantised
from analyzer.batching import Batching, distinct_pair, prove, run_all
from analyzer.declaration import Declaration
from analyzer.errors import ExplanationWarning, ModelRejectedError
from analyzer.explained import Explained, Layers, find_explained
from analyzer.explaining import Context, Explainer, Explainers
from analyzer.explanation import Explanation
from analyzer.image_input import find_image_input, model_inputs, model_outputs
from analyzer.intake import Images, Intake, take_in
from analyzer.pictures import PictureSource
from analyzer.plan import Methods, Plan
from analyzer.prediction import Prediction, read_prediction
from analyzer.preprocess import PRESETS, Preprocess
from analyzer.profile import Profile, profile_of
from analyzer.questions import Question, ask, objective_of
from analyzer.rewriting import rewriting
from analyzer.session import Session, Settled
from analyzer.sources import OpenedModel
from analyzer.sources.external_data import bring_in
from analyzer.specialized import SpecializedSession
from analyzer.targets import Target, nest
from graph_rewrites.canonical import canonical_facts


@dataclass(frozen=True)
class _Asked:
    """A request, checked, what answers it, and the seconds that its pictures took to read."""

    intake: Intake
    question: Question
    explainer: Explainer
    batching: Batching
    decoding: float


class Analyzer:
    """One model with everything known about it. Made by `analyzer.load`.

    Attributes:
        name: The file's name, or the graph's.
        sha256: The file's hash.
        files: The file and those of its external data; none of a model given in memory.
        original: The model as it was given. Of a file, weights above 64 KiB stay there: their
            tensors name it by its absolute path, as do those of `model`; `compile` loads them.
        model: The canonical model.
        image: The input that takes pictures.
        inputs: All inputs of the file.
        outputs: All outputs of the file.
        preprocess: How pictures become inputs, fitted to the model.
        preprocess_origin: Who declared it; "assumed" where nobody did.
        device: "cpu" or "cuda".
        device_reason: Why this device.
        precision: "float32", "tf32" or "float16": of products on CUDA.
        provider: The runtime's execution provider.
        quantised: The file quantises something.
        widened: The file holds 16-bit floats, which are computed in float32.
    """

    def __init__(
        self, opened: OpenedModel, declared: Declaration, settled: Settled, batch_size: int | None
    ) -> None:
        """Canonicalise the model and fit the declared preprocessing to it."""
        self._opened, self.original = opened, opened.model
        self.name, self.sha256 = opened.name, opened.sha256
        self.inputs, self.outputs = model_inputs(opened.model), model_outputs(opened.model)
        self.files = opened.files
        self.image = find_image_input(opened.model, declared.preprocess.layout, opened.name)
        if declared.assumed and self.image.channels == 3 and self.image.dtype.startswith("float"):
            declared = replace(declared, preprocess=PRESETS["imagenet"])
        self._declared = declared
        self.preprocess: Preprocess = declared.preprocess.fit(self.image)
        self.preprocess_origin = declared.origin
        self.device, self.provider = settled.device, settled.provider
        self.device_reason, self.precision = settled.reason, settled.precision
        self.quantised = is_quantised(opened.model)
        self._batch_size = batch_size
        self._explainers = Explainers()
        self._explained: dict[tuple[str | None, str | None], Explained] = {}
        with rewriting(self.name):
            self.model: onnx.ModelProto = gr.canonicalize(opened.model, batch="free")
        self._canonical = canonical_facts(self.model)
        self.widened = bool(self._canonical["widened"])
        if declared.labels is not None:
            self.explained()

    def explained(self, output: str | None = None, objective: str | None = None) -> Explained:
        """What is explained where `output` is asked for: tensor, classes, layers.

        Args:
            output: An output, an inner tensor or a layer path; None for the class scores, or the
                one output that holds scores at many places.
            objective: "class", "mask", "box" or "similarity"; None lets the tensor decide.

        Raises:
            UsageError: No tensor of this name.
            ModelRejectedError: No tensor suits.
        """
        asked = (output, objective)
        if asked not in self._explained:
            found = find_explained(self.model, self.name, *asked, self._declared.labels)
            self._explained[asked] = found
        return self._explained[asked]

    @property
    def scores(self) -> gr.Scores:
        """The class scores: where they are, and what was peeled off to find them."""
        return self.explained().scores

    @property
    def layers(self) -> tuple[gr.FeatureMap, ...]:
        """Every tensor that a CAM can use, in the order in which they are computed."""
        try:
            return self.explained().layers
        except ModelRejectedError:
            return gr.feature_maps(self.model)

    @property
    def default_layer(self) -> str | None:
        """The path of the layer that CAM methods take where none is named."""
        return next((m.name for m in self.layers if m.default), None)

    @property
    def classes(self) -> int | None:
        """The number of classes that can be explained; None where the file leaves it open."""
        return self.explained().classes.count

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class names, where known."""
        return self._declared.labels

    def label(self, index: int) -> str:
        """The name of a class, or its index as text."""
        return self.explained().classes.label(index)

    @property
    def batch(self) -> int | Literal["free"]:
        """How many images one run takes; proven with two different images on first use."""
        return "free" if self._batching.free else self._batching.fixed or 1

    @property
    def batch_reason(self) -> str:
        """Why `batch` is what it is."""
        return self._batching.reason

    @overload
    def explain(
        self,
        images: Images,
        method: str = ...,
        target: Target = ...,
        layer: str | int | None = ...,
        other_activations: str = ...,
        output: str | None = ...,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        images: Images,
        method: Methods = ...,
        target: Target = ...,
        layer: Layers = ...,
        other_activations: str = ...,
        output: str | None = ...,
    ) -> Explanation | dict[str, Explanation]: ...

    def explain(
        self,
        images: Images,
        method: Methods = "grad_cam",
        target: Target = None,
        layer: Layers = None,
        other_activations: str = "gradient",
        output: str | None = None,
    ) -> Explanation | dict[str, Explanation]:
        """Explain what the model says about images.

        Args:
            images: A path, a PIL image, a uint8 array (H, W, 3), a list of these, or a preprocessed
                batch in the model's layout.
            method: A name in `METHODS`, or several.
            target: Class indices or names, None being the arg-max; or `Mask`, `Box` or
                `Similarity`. One image and a flat list: its targets. N images and a flat list: one
                each. Nested N × T: T for each. A plain class of a segmentation is explained over
                the whole picture, that of a detector in its best box.
            layer: The layer of CAM methods: path, tensor or index in `layers`, or several.
            other_activations: "gradient", "positive" or "strict", for what is no ReLU.
            output: What is explained: an output, a tensor inside the network, or a layer path; by
                default the class scores.

        Returns:
            One explanation; a dictionary by "<method>" or "<method>/<layer>" where `method` is a
            tuple or several layers were named.

        Raises:
            UsageError: An unknown method, layer, output, class or box, a mask that does not fit,
                or targets of another length.
            ImageError: A picture that cannot be used.
            ModelRejectedError: The model cannot be differentiated.
        """
        asked = self._ask(images, method, target, layer, other_activations, output)
        found = asked.explainer.explain(
            asked.intake, asked.question, asked.batching, self._batch_size, self._context
        )
        return found if asked.explainer.plan.several else next(iter(found.values()))

    def profile(
        self,
        image: Images,
        method: Methods = "grad_cam",
        target: Target = None,
        layer: Layers = None,
        other_activations: str = "gradient",
        output: str | None = None,
    ) -> Profile:
        """Measure where the time goes when an image is explained; arguments as for `explain`.

        Returns:
            The phases "decode", "forward", "backward", "maps" and "layout"; nothing is written.

        Raises:
            AnalyzerError: See `explain`.
        """
        asked = self._ask(image, method, target, layer, other_activations, output)
        nodes, run = asked.explainer.profile(
            asked.intake, asked.question, asked.batching, self._context
        )
        return profile_of(nodes, run, {"decode": asked.decoding}, self.device)

    def predict(self, images: Images) -> Prediction:
        """What the model itself says.

        Args:
            images: As for `explain`.

        Raises:
            ImageError: A picture that cannot be used.
            ModelRejectedError: The model says something else than one value for each class.
        """
        self._opened.require_unchanged()
        scores, classes = self.scores, self.explained().classes
        if scores.position_axes:
            raise ModelRejectedError(
                f"{self.name}: output {scores.output!r} holds scores at many places, which predict "
                "cannot rank; explain a picture and read its `outputs`"
            )
        intake = self._take_in(images)
        batching = self._batching_of(len(intake.pictures))
        inputs = {self.image.name: intake.values}
        outputs = run_all(self._forward, inputs, batching, self._batch_size)
        return read_prediction(self.model, scores, outputs[scores.output], classes)

    def compile(
        self,
        method: Methods = "grad_cam",
        layer: Layers = None,
        targets: int = 1,
        other_activations: str = "gradient",
        output: str | None = None,
        objective: str | None = None,
    ) -> onnx.ModelProto:
        """The explanation model: forward, backward and maps in one ONNX file.

        Above 2 GiB it is to be saved with its weights as external data.

        Args:
            method: A name in `METHODS`, or several.
            layer: The layer of CAM methods, or several.
            targets: Targets for each image.
            other_activations: "gradient", "positive" or "strict".
            output: What is explained; see `explain`.
            objective: "class", "mask", "box" or "similarity"; None lets the tensor decide.

        Raises:
            UsageError: An unknown method, layer or output.
            ModelRejectedError: The model cannot be differentiated.
        """
        self._opened.require_unchanged()
        explained = self.explained(output, objective)
        layers = explained.layer_names(layer)
        plan = Plan.of(method, layers, targets, other_activations, output, explained.objective)
        _ = self._batching  # a batch that was freed wrongly must not leave the house
        return bring_in(plan.build(self.model, self.name))

    def coverage(self, method: str = "guided_backprop", output: str | None = None) -> gr.Coverage:
        """Each activation and the rule that a method gives it, without running anything.

        Raises:
            UsageError: An unknown method or output.
            ModelRejectedError: The model cannot be differentiated.
        """
        plan = Plan.of(method, None, 1, "gradient", output, self.explained(output).objective)
        (found,) = plan.maps()
        with rewriting(self.name):
            return gr.coverage(plan.build(self.model, self.name), prefix=found.method.relu)

    @cached_property
    def _forward(self) -> Session:
        return Session(self.model, self.device)

    @property
    def _fixed(self) -> int | None:
        """The batch that the canonical model insists on."""
        leading = (model_inputs(self.model)[0].shape or ("?",))[0]
        return leading if isinstance(leading, int) else None

    @cached_property
    def _batching(self) -> Batching:
        if self._fixed is not None:
            reason = f"the file fixes the batch at {self._fixed}: {self._canonical['batch']}"
            return Batching(self._fixed, True, reason)
        found = prove(self._forward, self.image.name, distinct_pair(self.image, self.preprocess))
        if not found.free:
            with rewriting(self.name):
                self.model = gr.canonicalize(self._opened.model, batch="keep")
            found = replace(found, fixed=self._fixed)
            self._explainers.clear()
            del self._forward
        return found

    def _batching_of(self, count: int) -> Batching:
        """One image needs no proof, unless the file demands several at once."""
        stored = self.inputs[0].shape
        alone = count == 1 and stored is not None and (stored[0] == 1 or isinstance(stored[0], str))
        if alone and "_batching" not in self.__dict__:
            return Batching(None, True, "a single image")
        return self._batching

    def _ask(
        self,
        images: Images,
        method: Methods,
        target: Target,
        layer: Layers,
        other_activations: str,
        output: str | None,
    ) -> _Asked:
        """Check a request, and build what answers it."""
        self._opened.require_unchanged()
        begun = time.perf_counter()
        intake = self._take_in(images, stacklevel=4)
        decoding = time.perf_counter() - begun
        count = len(intake.pictures)
        rows = nest(target, count)
        explained = self.explained(output, objective_of(rows))
        targets = 1 if self._fixed else len(rows[0])
        layers = explained.layer_names(layer)
        plan = Plan.of(method, layers, targets, other_activations, output, explained.objective)
        explainer = self._explainer(plan, explained)
        question = ask(rows, explained, intake, lambda images: self._embed(explainer, images))
        return _Asked(intake, question, explainer, self._batching_of(count), decoding)

    def _take_in(self, images: Images, stacklevel: int = 3) -> Intake:
        intake = take_in(images, self.preprocess, self.image)
        if self._declared.assumed and intake.prepared_here:
            self._declared = replace(self._declared, assumed=False)
            assumption = provenance.assumption(self.preprocess)
            warnings.warn(f"{self.name}: {assumption}", ExplanationWarning, stacklevel=stacklevel)
        return intake

    def _embed(
        self, explainer: Explainer, images: list[PictureSource]
    ) -> tuple[npt.NDArray[np.float32], list[dict[str, Any]]]:
        """The embeddings of reference pictures, and what to record of them."""
        intake = take_in(images, self.preprocess, self.image)
        batching = self._batching_of(len(images))
        vectors = explainer.embed(intake, batching, self._batch_size, self._context)
        return vectors, [{"reference": p.name, "sha256": p.sha256} for p in intake.pictures]

    def _explainer(self, plan: Plan, explained: Explained) -> Explainer:
        def build(plan: Plan) -> Explainer:
            built = plan.build(self.model, self.name)
            session = SpecializedSession(
                built, self.device, precision=self.precision, at_once=self._batch_size
            )
            return Explainer(plan, explained, built, session)

        return self._explainers.get(plan, build)

    @cached_property
    def _context(self) -> Context:
        known = self.image.channels == len(self.preprocess.channels)
        return Context(
            image=self.image,
            outputs=tuple(output.name for output in self.outputs),
            channels=self.preprocess.channels if known else "",
            record={
                "model": provenance.model_facts(self._opened),
                "preprocess": {"origin": self.preprocess_origin, **self.preprocess.as_dict()},
                "canonical": self._canonical,
                "device": self.device_reason,
            },
            quantised=self.quantised,
            widened=self.widened,
        )
