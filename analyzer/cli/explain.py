"""`onnx-analyzer explain MODEL IMAGE...`: maps, overlays and their provenance."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer.cli import options
from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.output_paths import file_must_be_writable, folder_must_be_writable
from analyzer.cli.terminal import (
    complain,
    printable,
    progress,
    put,
    put_json,
    say,
    say_all,
    say_device,
)
from analyzer.cli.wanted import wanted
from analyzer.errors import InputError

if TYPE_CHECKING:
    from analyzer import Analyzer, Explanation
    from analyzer.profile import Profile
    from analyzer.session import Device, Precision

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Result:
    """What became of one picture: an entry for each map, or why there is none.

    `writing` is how many seconds its files took.
    """

    image: Path
    maps: tuple[Mapping[str, Any], ...] = ()
    error: str | None = None
    writing: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The picture's entry of the JSON forms."""
        outcome = {"maps": self.maps} if self.error is None else {"error": self.error}
        return {"image": str(self.image), **outcome}


@click.command("explain", short_help="Explain pictures.")
@options.model
@click.argument("images", type=options.PATH, nargs=-1, required=True, metavar="IMAGE...")
@options.methods
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    help="Class index or name; several times for several classes; default: the arg-max.",
)
@options.explained
@click.option(
    "--mask",
    "masks",
    type=options.PATH,
    multiple=True,
    help="Part of a segmentation: a picture of the IMAGE's size, not black where --target is "
    "explained; default: the whole picture.",
)
@click.option(
    "--box",
    "boxes",
    type=int,
    multiple=True,
    help="Box of a detector, by its number before boxes are sorted out; default: the best.",
)
@click.option(
    "--similar-to",
    "likes",
    type=options.PATH,
    multiple=True,
    metavar="IMAGE",
    help="Explain what makes the embedding similar to that of another picture.",
)
@options.layer
@options.preprocess
@options.labels
@options.device
@options.precision
@options.other_activations
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=Path("explanations"),
    show_default=True,
    help="Folder for maps and pictures; for one map also a file ending in .npz.",
)
@options.profile
@options.output_format("text", "json", "jsonl")
@options.debug
def command(
    model: Path,
    images: tuple[Path, ...],
    methods: tuple[str, ...],
    targets: tuple[str, ...],
    explained: str | None,
    masks: tuple[Path, ...],
    boxes: tuple[int, ...],
    likes: tuple[Path, ...],
    layer: str | None,
    preprocess: str | None,
    labels: str | None,
    device: Device,
    precision: Precision,
    other_activations: str,
    output: Path,
    profile: bool,
    form: str,
) -> int:
    """Explain what MODEL says about each IMAGE, and write the maps.

    A picture that cannot be used is named on stderr; the others are finished, and the exit code
    is 3.
    """
    import analyzer
    from analyzer.archive import file_stems, is_one_file

    if is_one_file(output) and (len(images) > 1 or len(methods) > 1):
        raise click.UsageError(
            f"{output} is one file and several maps are asked for; give a folder"
        )
    target = wanted(targets, masks, boxes, likes)
    loaded = analyzer.load(
        model, preprocess=preprocess, labels=labels, device=device, precision=precision
    )
    if is_one_file(output):
        file_must_be_writable(output)
    else:
        folder_must_be_writable(output)
    say_device(device, loaded.device_reason)
    call = {
        "method": methods,
        "target": target,
        "output": explained,
        "layer": layer,
        "other_activations": other_activations,
    }
    images = tuple(dict.fromkeys(images))
    stems = file_stems(image.name for image in images)
    pairs = tuple(zip(images, stems, strict=True))
    finished = []
    with progress(pairs, "explaining", streamed=form != "json") as shown:
        for result in _explain_each(loaded, shown, call, output):
            finished.append(result)
            _show(result, form)
    profiled = _profiled(loaded, finished, call) if profile else None
    return _conclude(finished, form, loaded, profiled)


def _explain_each(
    loaded: Analyzer,
    images: Iterable[tuple[Path, str]],
    call: Mapping[str, Any],
    output: Path,
) -> Iterator[Result]:
    """Explain and save one picture after the other; a bad one costs nothing but itself.

    Each comes with what its files' names begin with.
    """
    from analyzer.archive import save

    for image, stem in images:
        try:
            explained = loaded.explain(image, **call)
        except InputError as error:
            yield Result(image, error=str(error))
            continue
        begun = time.perf_counter()
        files = [save(e, output, [stem]) for e in explained.values()]
        writing = time.perf_counter() - begun
        entries = map(_map_entry, explained.values(), files)
        yield Result(image, tuple(entries), writing=writing)


def _profiled(
    loaded: Analyzer, finished: Sequence[Result], call: Mapping[str, Any]
) -> Profile | None:
    """Where the time of the first picture that could be explained went."""
    for result in finished:
        if result.error is None:
            found = loaded.profile(result.image, **call)
            return replace(found, seconds={**found.seconds, "write": result.writing})
    return None


def _show(result: Result, form: str) -> None:
    """Put one finished picture on stdout, in the forms that stream."""
    if form == "jsonl":
        put_json(result.as_dict())
    elif form == "text":
        for entry in result.maps:
            put(f"{printable(result.image)}: {_sentence(entry)}")
            for file in entry["files"]:
                put(f"  {printable(file)}")


def _conclude(
    finished: Sequence[Result], form: str, loaded: Analyzer, profile: Profile | None
) -> ExitCode:
    """Put the JSON document, list the failures, and choose the exit code."""
    if form == "json":
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "model": {
                "name": loaded.name,
                "sha256": loaded.sha256,
                "provider": loaded.provider,
                "provider_reason": loaded.device_reason,
            },
            "images": [result.as_dict() for result in finished],
        }
        if profile is not None:
            document["profile"] = profile.as_dict()
        put_json(document, indent=2)
    elif profile is not None and form == "jsonl":
        put_json({"profile": profile.as_dict()})
    elif profile is not None:
        say_all(profile.lines())
    failures = [result for result in finished if result.error is not None]
    for result in failures:
        complain(result.error)
    if failures and len(finished) > 1:
        say(f"{len(finished) - len(failures)} of {len(finished)} pictures are explained")
    return ExitCode.FAILED_IMAGES if failures else ExitCode.OK


def _map_entry(explanation: Explanation, files: Sequence[Path]) -> dict[str, Any]:
    """What is said of one picture's map; a score that is no number is null, as JSON has none."""
    (image,) = explanation.provenance["images"]
    targets = zip(
        explanation.target.reshape(-1).tolist(),
        explanation.labels[0],
        explanation.scores.reshape(-1).tolist(),
        image["targets"],
        strict=True,
    )
    return {
        "method": explanation.method,
        "layer": explanation.layer,
        "explained": explanation.provenance["model"]["scores"],
        "targets": [
            {"index": index, "label": label, "score": score if isfinite(score) else None, **asked}
            for index, label, score, asked in targets
        ],
        "files": [str(file) for file in files],
    }


def _sentence(entry: Mapping[str, Any]) -> str:
    where = f" at {entry['layer']}" if entry["layer"] else ""
    classes = entry["explained"]["classes"] > 1
    targets = ", ".join(_target(target, classes) for target in entry["targets"])
    return printable(f"{entry['method']}{where} of {targets}")


def _target(target: Mapping[str, Any], classes: bool) -> str:
    """With the class's index where there are classes and the label does not say it already."""
    label, index, score = target["label"], str(target["index"]), target["score"]
    number = f"{index}, " if classes and label.partition(" ")[0] != index else ""
    return f"{label} ({number}score {nan if score is None else score:.4g})"
