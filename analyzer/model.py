"""load() and Analyzer: one model, ready to be asked why it says what it says."""

import warnings
from collections import OrderedDict
from dataclasses import replace
from functools import cached_property
from typing import Final, Literal, overload

import onnx

import graph_rewrites as gr
from analyzer import provenance
from analyzer.artefact import is_quantised
from analyzer.batching import Batching, distinct_pair, prove, run_all
from analyzer.declaration import Declaration, LabelSource, PreprocessSource, declare
from analyzer.errors import ExplanationWarning, UsageError
from analyzer.explaining import Context, Explainer
from analyzer.explanation import Explanation
from analyzer.image_input import find_image_input, model_inputs, model_outputs
from analyzer.intake import Images, Intake, take_in
from analyzer.plan import Plan
from analyzer.prediction import Prediction, read_prediction
from analyzer.preprocess import PRESETS, Preprocess
from analyzer.rewriting import rewriting
from analyzer.session import Device, Session, Settled, settle
from analyzer.sources import ModelSource, OpenedModel, open_model
from analyzer.targets import Classes, Target, resolve_targets
from graph_rewrites.canonical import canonical_facts

_EXPLAINERS_KEPT: Final = 8

Methods = str | tuple[str, ...]
Layers = str | tuple[str, ...] | None


def load(
    source: ModelSource,
    *,
    preprocess: PreprocessSource = None,
    labels: LabelSource = None,
    device: Device = "cpu",
    batch_size: int | None = None,
) -> "Analyzer":
    """Open a model for explaining.

    Args:
        source: The path of an ONNX file, or a ModelProto.
        preprocess: A `Preprocess`, its keys, a preset ("imagenet", "caffe", "tf", "raw"), an entry
            of the catalogue, or a TOML file. By default the sidecar `<model>.toml`, else the
            catalogue's entry for this very file, else an assumption that warns when it is used.
        labels: Class names, a text file with one name a line, or a label set of the catalogue.
        device: "cpu", "cuda" (an error where CUDA does not load), or "auto".
        batch_size: The largest number of images in one run; 8 by default.

    Raises:
        UsageError: No such file; an unknown preset, device or key; labels that do not fit.
        ModelRejectedError: No ONNX, damaged, without an image input, or not supported.
        MissingProviderError: The device does not load.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size = {batch_size}; at least one image must run")
    settled = settle(device)
    opened = open_model(source)
    declared = declare(preprocess, labels, opened.path, opened.sha256)
    return Analyzer(opened, declared, settled, batch_size)


class Analyzer:
    """One model with everything known about it. Made by `load`.

    Attributes:
        name: The file's name, or the graph's.
        sha256: The file's hash.
        original: The model as it was given.
        model: The canonical model.
        image: The input that takes pictures.
        inputs: All inputs of the file.
        outputs: All outputs of the file.
        preprocess: How pictures become inputs, fitted to the model.
        preprocess_origin: Who declared it; "assumed" where nobody did.
        device: "cpu" or "cuda".
        device_reason: Why this device.
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
        self.image = find_image_input(opened.model, declared.preprocess.layout)
        if declared.assumed and self.image.channels == 3 and self.image.dtype.startswith("float"):
            declared = replace(declared, preprocess=PRESETS["imagenet"])
        self._declared = declared
        self.preprocess: Preprocess = declared.preprocess.fit(self.image)
        self.preprocess_origin = declared.origin
        self.device, self.provider = settled.device, settled.provider
        self.device_reason = settled.reason
        self.quantised = is_quantised(opened.model)
        self._batch_size = batch_size
        self._explainers: OrderedDict[Plan, Explainer] = OrderedDict()
        with rewriting(self.name):
            self.model: onnx.ModelProto = gr.canonicalize(opened.model, batch="free")
        self._canonical = canonical_facts(self.model)
        self.widened = bool(self._canonical["widened"])
        if declared.labels is not None:
            self._classes.check(self.name)

    @cached_property
    def scores(self) -> gr.Scores:
        """The class scores: where they are, and what was peeled off to find them."""
        with rewriting(self.name):
            return gr.scores(self.model)

    @cached_property
    def layers(self) -> tuple[gr.FeatureMap, ...]:
        """Every tensor that a CAM can use, the default first."""
        with rewriting(self.name):
            return tuple(gr.feature_maps(self.model))

    @property
    def default_layer(self) -> str | None:
        """The path of the layer that CAM methods take where none is named."""
        return next((m.path or m.tensor for m in self.layers if m.default), None)

    @property
    def classes(self) -> int | None:
        """The number of classes that can be explained; None where the file leaves it open."""
        return self._count

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class names, where known."""
        return self._declared.labels

    def label(self, index: int) -> str:
        """The name of a class, or its index as text."""
        return self._classes.label(index)

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
        layer: str | None = ...,
        other_activations: str = ...,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        images: Images,
        method: Methods = ...,
        target: Target = ...,
        layer: Layers = ...,
        other_activations: str = ...,
    ) -> Explanation | dict[str, Explanation]: ...

    def explain(
        self,
        images: Images,
        method: Methods = "grad_cam",
        target: Target = None,
        layer: Layers = None,
        other_activations: str = "gradient",
    ) -> Explanation | dict[str, Explanation]:
        """Explain what the model says about images.

        Args:
            images: A path, a PIL image, a uint8 array (H, W, 3), a list of these, or a preprocessed
                batch in the model's layout.
            method: A name in `METHODS`, or several.
            target: Class indices or names; None is the arg-max. One image and a flat list: its
                targets. N images and a flat list: one each. Nested N × T: T for each.
            layer: The layer of CAM methods, as `layers` lists it, or several.
            other_activations: "gradient", "positive" or "strict", for what is no ReLU.

        Returns:
            One explanation; a dictionary by "<method>" or "<method>/<layer>" where `method` is a
            tuple or several layers were named.

        Raises:
            UsageError: An unknown method, layer or class, or targets of another length.
            ImageError: A picture that cannot be used.
            ModelRejectedError: The model cannot be differentiated.
        """
        intake = self._take_in(images)
        count = len(intake.pictures)
        targets = resolve_targets(target, count, self._classes)
        plan = Plan.of(
            method, layer, 1 if targets.ndim == 1 else targets.shape[1], other_activations
        )
        batching = self._batching_of(count)
        explainer = self._explainer(plan)
        found = explainer.explain(intake, targets, batching, self._batch_size, self._context)
        return found if plan.several else next(iter(found.values()))

    def predict(self, images: Images) -> Prediction:
        """What the model itself says.

        Args:
            images: As for `explain`.

        Raises:
            ImageError: A picture that cannot be used.
        """
        intake = self._take_in(images)
        batching = self._batching_of(len(intake.pictures))
        outputs = run_all(
            self._forward, {self.image.name: intake.values}, batching, self._batch_size
        )
        return read_prediction(self.model, self.scores, outputs[self.scores.output], self._classes)

    def compile(
        self,
        method: Methods = "grad_cam",
        layer: Layers = None,
        targets: int = 1,
        other_activations: str = "gradient",
    ) -> onnx.ModelProto:
        """The explanation model: forward, backward and maps in one ONNX file.

        Args:
            method: A name in `METHODS`, or several.
            layer: The layer of CAM methods, or several.
            targets: Targets for each image.
            other_activations: "gradient", "positive" or "strict".

        Raises:
            UsageError: An unknown method or layer.
            ModelRejectedError: The model cannot be differentiated.
        """
        plan = Plan.of(method, layer, targets, other_activations)
        _ = self._batching  # a batch that was freed wrongly must not leave the house
        return plan.build(self.model, self.name)

    def coverage(self, method: str = "guided_backprop") -> gr.Coverage:
        """Each activation and the rule that a method gives it, without running anything.

        Raises:
            UsageError: An unknown method.
            ModelRejectedError: The model cannot be differentiated.
        """
        plan = Plan.of(method, None, 1, "gradient")
        (found,) = plan.maps()
        with rewriting(self.name):
            return gr.coverage(plan.build(self.model, self.name), prefix=found.method.relu)

    @cached_property
    def _count(self) -> int | None:
        count = self.scores.classes
        # One logit behind a sigmoid has two answers, for and against.
        return 2 if count == 1 and "Sigmoid" in self.scores.peeled else count

    @cached_property
    def _classes(self) -> Classes:
        return Classes(self._count, self._declared.labels)

    @cached_property
    def _forward(self) -> Session:
        return Session(self.model, self.device)

    @cached_property
    def _batching(self) -> Batching:
        leading = (model_inputs(self.model)[0].shape or ("?",))[0]
        if isinstance(leading, int):
            reason = f"the file fixes the batch at {leading}: {self._canonical['batch']}"
            return Batching(leading, True, reason)
        pair = distinct_pair(self.image, self.preprocess)
        found = prove(self._forward, self.image.name, pair)
        if not found.free:
            with rewriting(self.name):
                self.model = gr.canonicalize(self._opened.model, batch="keep")
            leading = (model_inputs(self.model)[0].shape or ("?",))[0]
            found = replace(found, fixed=leading if isinstance(leading, int) else None)
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

    def _take_in(self, images: Images) -> Intake:
        intake = take_in(images, self.preprocess, self.image)
        if self._declared.assumed and intake.prepared_here:
            self._declared = replace(self._declared, assumed=False)
            warnings.warn(
                f"{self.name}: nobody declared its preprocessing; assumed "
                f"{_spoken(self.preprocess)}; a wrong one spoils every answer, so declare it",
                ExplanationWarning,
                stacklevel=3,
            )
        return intake

    def _explainer(self, plan: Plan) -> Explainer:
        """The loaded explanation model of a plan; the least recently used one makes room."""
        if plan not in self._explainers:
            built = plan.build(self.model, self.name)
            self._explainers[plan] = Explainer(plan, built, Session(built, self.device))
            while len(self._explainers) > _EXPLAINERS_KEPT:
                self._explainers.popitem(last=False)
        self._explainers.move_to_end(plan)
        return self._explainers[plan]

    @cached_property
    def _context(self) -> Context:
        known = self.image.channels == len(self.preprocess.channels)
        return Context(
            image=self.image,
            classes=self._classes,
            outputs=tuple(output.name for output in self.outputs),
            default_layer=self.default_layer,
            channels=self.preprocess.channels if known else "",
            record={
                "model": provenance.model_facts(self._opened, self.scores),
                "preprocess": {"origin": self.preprocess_origin, **self.preprocess.as_dict()},
                "canonical": self._canonical,
                "device": self.device_reason,
            },
            quantised=self.quantised,
            widened=self.widened,
        )


def _spoken(preprocess: Preprocess) -> str:
    if preprocess.mean or preprocess.scale != 1:
        return "preset 'imagenet'"
    return f"{preprocess.channels} 0-255 without mean"
