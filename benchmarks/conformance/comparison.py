"""One member's graph beside its network: both parts of agreement, and the two other ReLU rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import graph_rewrites as gr
from analyzer.errors import AnalyzerError
from analyzer.session import Session
from analyzer.sources.onnx_file import read_onnx
from benchmarks.conformance.fingerprints import (
    fingerprint,
    lowering_fingerprint,
    model_digest,
)
from benchmarks.conformance.reference import Reference
from benchmarks.conformance.results import (
    AGREES,
    DIFFERS,
    FAILED,
    NOT_EXPORTED,
    REFUSED,
    Result,
)
from graph_rewrites.errors import GraphRewriteError
from graph_rewrites.sharp import directional_error
from tests.oracles.onnx_gradients import INPUT, OnnxGradients, resized, session
from tests.oracles.passes import (
    BATCH,
    FORCED_BAR,
    INPUTS,
    ROUNDING_BAR,
    SHARP_BAR,
    Gradients,
    Kink,
    count_flips,
    distance,
    drawn,
)

_FEW = 0.02  # of a kink's elements; two passes of one network differ in fewer
_LOWERED = "lowered"
_OTHER_RULES = ("guided", "deconvnet")
_SMALL = (64, 96, 128)  # pictures of the sharp check, where the graph takes them


def measure(member: str, framework: type[Reference], folder: Path) -> Result:
    """Export a member, or take its export from `folder`, and compare it with its framework."""
    reference = framework(member)
    facts: dict[str, Any] = {"shape": reference.shape}
    try:
        file = _exported(reference, member, folder)
    except Exception as error:  # whatever the exporter throws is the finding
        return Result(member, NOT_EXPORTED, _sentence(error), **facts)
    try:
        model = read_onnx(file).model  # its weights stay there: the largest would not fit otherwise
        facts["nodes"] = len(model.graph.node)
        facts["operators"] = dict(sorted(Counter(n.op_type for n in model.graph.node).items()))
        start = time.perf_counter()
        gr.differentiate(gr.canonicalize(model), wrt=INPUT, of=reference.of)
        figures = {"build": time.perf_counter() - start}
        comparison = _Comparison(reference, model)
        facts |= _digests(model, reference.of, reference.shape)
    except (GraphRewriteError, AnalyzerError) as error:
        return Result(member, REFUSED, _sentence(error), **facts)
    facts["layer"] = comparison.layer_name
    try:
        figures |= {**comparison.sharp(), **comparison.agreement(), **comparison.rules()}
        figures |= comparison.lowered()
    except Exception as error:
        return Result(member, FAILED, _sentence(error), **facts)
    return _judged(Result(member, AGREES, figures=figures, **facts), comparison.notes)


def renew(known: Result, framework: type[Reference], folder: Path) -> Result:
    """Of a member that was compared, what the present code makes otherwise than it was then.

    Nothing is compared where the models are the same and agreed, the lowered one alone where only
    that is not, or did not. The figures are those of the check as it was then.
    """
    file = _path(known.member, folder)
    if not file.exists():
        _exported(framework(known.member), known.member, folder)
    made = _digests(read_onnx(file).model, framework.of, known.shape)
    same = known.models == made["models"] if known.models else known.current
    if not same or any(not found.startswith(_LOWERED) for found in complaints(known.figures)):
        return measure(known.member, framework, folder)
    renewed = replace(known, code=fingerprint(), lowering=lowering_fingerprint(), **made)
    if known.lowered_model == made["lowered_model"] and known.verdict == AGREES:
        return renewed
    comparison = _Comparison(framework(known.member), read_onnx(file).model)
    figures = {k: v for k, v in known.figures.items() if k not in ("lowered", "moved")}
    figures |= comparison.lowered()
    return _judged(replace(renewed, figures=figures), comparison.notes)


def _path(member: str, folder: Path) -> Path:
    return folder / f"{member.replace('/', '__')}.onnx"


def _exported(reference: Reference, member: str, folder: Path) -> Path:
    """The member's file, written unless it is there."""
    file = _path(member, folder)
    reference.export(file)
    return file


def _digests(model: onnx.ModelProto, of: str | None, shape: Sequence[int]) -> dict[str, str]:
    """Of the models that are compared, each with all three rules, and of the lowered one."""
    ours, *others = (OnnxGradients(model, rule, of=of) for rule in ("gradient", *_OTHER_RULES))
    lowered = ours.lowered_model({INPUT: (BATCH, *shape)})
    return {
        "models": model_digest(ours.model, *(other.model for other in others)),
        "lowered_model": model_digest(lowered),
    }


def _judged(result: Result, notes: Sequence[str]) -> Result:
    found = complaints(result.figures)
    verdict = DIFFERS if found else AGREES
    return replace(result, verdict=verdict, reason="; ".join([*dict.fromkeys(notes), *found]))


class _Comparison:
    """The graph and the network side by side.

    Attributes:
        layer_name: the graph's default CAM layer, "" where it has none.
        notes: what could not be compared.
    """

    def __init__(self, reference: Reference, model: onnx.ModelProto) -> None:
        self.model, self.theirs = model, reference
        self.ours = OnnxGradients(model, of=reference.of)
        self._images = (BATCH, *reference.shape)
        self.notes: list[str] = []
        self._place = None
        layer = self.ours.layer
        self.layer_name = "" if layer is None else layer.path or layer.tensor
        if layer is None:
            self.notes.append("no default layer")
            return
        (images,) = drawn(0, self._images)
        values = self.ours(images, np.zeros(reference.scores)).activation
        self._place = reference.locate(images, values.astype(np.float32))
        if self._place is None:
            self.notes.append(f"the network computes {layer.tensor}, the default layer, nowhere")

    def sharp(self) -> dict[str, float]:
        """Directional errors in float64, on the smallest picture that the graph takes."""
        size = next((size for size in _SMALL if self._takes(size)), None)
        ours = self.ours if size is None else OnnxGradients(self._at(size), of=self.theirs.of)
        (picture,) = drawn(0, self._small(size or max(self._images[1:])))
        names = {"sharp_image": INPUT}
        if ours.layer is not None:
            names["sharp_layer"] = ours.layer.tensor
        count = 1 if size is None else 2  # each takes seconds on a large picture
        return {
            key: directional_error(
                ours.model, {INPUT: picture}, name, self.theirs.of, directions=count
            )
            for key, name in names.items()
        }

    def agreement(self) -> dict[str, float]:
        """Distances from the framework's gradients, over three batches."""
        found: dict[str, list[float]] = {}
        for seed in range(INPUTS):
            images, ct = self._drawn(seed)
            mine = self.ours(images, ct)
            own = self.theirs.gradients(images, ct, self._place, double=False)
            truth = self.theirs.gradients(images, ct, self._place, double=True)
            if seed == 0:
                self._first_kinks = truth.kinks
            held = self._held(mine, truth.kinks)
            for n in self._finite(images):
                for key, value in self._picture(n, mine, own, truth).items():
                    found.setdefault(key, []).append(value)
                if held is not None:
                    flips = sum(count_flips(held, truth.kinks, n))
                    found.setdefault("flips", []).append(flips)
            worst = max(found["image"] + found.get("layer", []))
            if worst > ROUNDING_BAR and held is not None:
                found.setdefault("forced", []).append(self._beside_flips(mine, held, images, ct))
                if found["forced"][-1] > ROUNDING_BAR:  # rounding may do that in a chaotic network
                    rounded = self._beside_flips(own, own.kinks, images, ct)
                    found.setdefault("own_forced", []).append(rounded)
        del self._original  # the largest models want its memory
        gathered = {"image": np.median, "layer": np.median, "flips": np.sum}
        return {key: float(gathered.get(key, np.max)(values)) for key, values in found.items()}

    def rules(self) -> dict[str, float]:
        """Distances of the two other ReLU rules at the picture, on one batch."""
        if not gr.coverage(self.ours.model).relus:
            return {}
        images, ct = self._drawn(0)
        found = {}
        for rule in _OTHER_RULES:
            mine = OnnxGradients(self.model, rule, of=self.theirs.of)(images, ct)
            held = self._held(mine, self._first_kinks)
            theirs = self.theirs.gradients(images, ct, None, double=True, rule=rule, replay=held)
            found[rule] = distance(mine.image, theirs.image)
        return found

    def lowered(self) -> dict[str, float]:
        """The lowered model beside the portable one, on one batch.

        Where its forward stands on other pieces, "moved" says on how many, and "lowered" is its
        distance from the framework in float64, held to these.
        """
        images, ct = self._drawn(0)
        portable, lowered = self.ours(images, ct), self.ours.lowered(images, ct)
        moved = sum(sum(count_flips(lowered.kinks, portable.kinks, n)) for n in range(BATCH))
        if not moved:
            pairs = [(lowered.image, portable.image), (lowered.layer, portable.layer)]
            distances = [distance(a, b) for a, b in pairs[: 1 + (self._place is not None)]]
            return {"lowered": max(distances), "moved": 0.0}
        held = self._held(lowered, self._first_kinks)
        if held is None:
            return {"moved": float(moved)}
        return {"lowered": self._beside_flips(lowered, held, images, ct), "moved": float(moved)}

    @cached_property
    def _original(self) -> Session:
        """The exported file itself, untouched."""
        return session(self.model)

    def _drawn(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        images, ct = drawn(seed, self._images, self.theirs.scores)
        return images, ct

    @cached_property
    def _first_kinks(self) -> Sequence[Kink]:
        """The framework's in float64, on the first batch."""
        images, ct = self._drawn(0)
        return self.theirs.gradients(images, ct, self._place, double=True).kinks

    def _held(self, mine: Gradients, theirs: Sequence[Kink]) -> list[Kink] | None:
        told = [kink for kink in mine.kinks if kink.kind in self.theirs.kinks]
        return _aligned(told, theirs)

    def _finite(self, images: np.ndarray) -> list[int]:
        """The pictures on which the exported file itself, untouched, computes numbers."""
        outputs = self._original.run({INPUT: images})
        broken = {n for y in outputs.values() for n in range(BATCH) if not np.isfinite(y[n]).all()}
        if broken:
            self.notes.append(f"{len(broken)} of {BATCH} pictures: the file's own scores are NaN")
        return [n for n in range(BATCH) if n not in broken]

    def _picture(
        self, n: int, mine: Gradients, own: Gradients, truth: Gradients
    ) -> dict[str, float]:
        found = {
            "image": distance(mine.image[n], truth.image[n]),
            "own_image": distance(own.image[n], truth.image[n]),
        }
        if self._place is not None:
            found["layer"] = distance(mine.layer[n], truth.layer[n])
            found["own_layer"] = distance(own.layer[n], truth.layer[n])
        return found

    def _beside_flips(
        self, mine: Gradients, kinks: Sequence[Kink], images: np.ndarray, ct: np.ndarray
    ) -> float:
        """The distance from the framework in float64 once that is held to the same pieces."""
        theirs = self.theirs.gradients(images, ct, self._place, double=True, replay=kinks)
        found = [distance(mine.image, theirs.image)]
        if self._place is not None:
            found.append(distance(mine.layer, theirs.layer))
        return max(found)

    def _at(self, size: int) -> onnx.ModelProto:
        return resized(self.model, size, self.theirs.spatial_axes)

    def _small(self, size: int) -> tuple[int, ...]:
        """The shape of a batch as small as the graph allows, of pictures of `size`."""
        batch = self.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
        shape = [batch, *self._images[1:]]
        for axis in self.theirs.spatial_axes:
            shape[axis] = size
        return tuple(shape)

    def _takes(self, size: int) -> bool:
        """Whether the graph runs on pictures of this size, with positions left at its layer."""
        if size >= max(self._images[1:]):
            return False
        model = self._at(size)
        (picture,) = drawn(0, self._small(size))
        try:
            session(model).run({INPUT: picture})
            small = next((m.tensor for m in gr.feature_maps(model) if m.default), None)
        except Exception:  # sizes written into the graph
            return False
        return small == (None if self.ours.layer is None else self.ours.layer.tensor)


def complaints(figures: Mapping[str, float]) -> list[str]:
    """Which bars the figures miss, in words."""
    found = [
        f"sharp, {place}: {figures[f'sharp_{place}']:.1e}"
        for place in ("image", "layer")
        if not figures.get(f"sharp_{place}", 0.0) <= SHARP_BAR  # NaN misses every bar
    ]
    for place in ("image", "layer"):
        bar = max(ROUNDING_BAR, 3 * figures.get(f"own_{place}", 0.0))
        if not figures.get(place, 0.0) <= bar:
            found.append(f"{place}: {figures[place]:.1e} over {bar:.1e}")
    own = 3 * max(figures["own_image"], figures.get("own_layer", 0.0))
    held = ROUNDING_BAR if figures.get("flips") else max(FORCED_BAR, own)
    held = max(held, 3 * figures.get("own_forced", 0.0))
    if not figures.get("forced", 0.0) <= held:
        found.append(f"more than flips: {figures['forced']:.1e} (own {figures['own_image']:.1e})")
    rounding = 0.0 if figures.get("flips") else figures["own_image"]
    bar = ROUNDING_BAR if figures.get("moved") else max(FORCED_BAR, rounding)
    if not figures.get("lowered", 0.0) <= max(bar, 3 * figures.get("own_forced", 0.0)):
        found.append(f"{_LOWERED}: {figures['lowered']:.1e}")
    if "flips" not in figures and max(figures["image"], figures.get("layer", 0.0)) > ROUNDING_BAR:
        found.append("its kinks are not the network's, so that flips cannot be counted")
    rules = {rule: figures.get(rule, 0.0) for rule in _OTHER_RULES}
    bar = max(ROUNDING_BAR, own)
    return found + [f"{rule}: {figure:.1e}" for rule, figure in rules.items() if not figure <= bar]


def _aligned(ours: Sequence[Kink], theirs: Sequence[Kink]) -> list[Kink] | None:
    """For each kink of the network the graph's, or its own where the graph leaves it out.

    A network may compute what nothing reads, and an exporter may write its parts in another order;
    two passes of one network stand on the same piece nearly everywhere. Where a network computes
    one thing several times and the exporter merged it, all of them stand where the graph does.
    None where a kink of the graph is none of the network's.
    """
    left, found = list(ours), list[Kink]()
    for kink in theirs:
        same = next((k for k in left if _is_same(k, kink)), None)
        twins = (f for t, f in zip(theirs, found, strict=False) if _is_twin(t, kink))
        found.append(same or next(twins, kink))
        left = [k for k in left if k is not same]
    return None if left else found


def _is_twin(a: Kink, b: Kink) -> bool:
    return a.kind == b.kind and np.array_equal(a.state, b.state)


def _is_same(a: Kink, b: Kink) -> bool:
    alike = a.kind == b.kind and a.state.shape == b.state.shape
    return alike and float(np.mean(a.state != b.state)) <= _FEW


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
