"""RESULTS.md: the figures, and each bar with what was seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from types import MappingProxyType
from typing import Any

from benchmarks.conformance.fingerprints import fingerprint, lowering_fingerprint
from benchmarks.markdown import line, rule
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.parts import PARTS

Row = Mapping[str, Any]

FORWARD, LOWERED, PORTABLE, APART = "forward", "lowered", "portable", "lowered, apart"
ONE_RUN = "lowered, one run"
LOWERED_TF32, LOWERED_HALF = "lowered, TF32", "lowered, float16"
TRAINING_BUILD = "training build"
EAGER, EAGER_TF32, EAGER_HALF = "PyTorch eager", "PyTorch eager, TF32", "PyTorch eager, float16"
PEERS = (
    EAGER,
    EAGER_TF32,
    EAGER_HALF,
    "torch.compile",
    "captum",
    "pytorch-grad-cam",
    "Keras eager",
    "tf.function",
    TRAINING_BUILD,
)
CONTENDERS = (PORTABLE, LOWERED, ONE_RUN, LOWERED_TF32, LOWERED_HALF, APART, *PEERS)
DENSE = ("ResNet-50", "VGG-16", "DenseNet-121")
LIGHT = ("MobileNetV2", "EfficientNet-B0", "ConvNeXt-T")

_CUDA = "CUDAExecutionProvider"
_STARTUP = {
    "build": "seconds to build the explanation model",
    "command": "seconds of a cold `explain`",
    "size": "its size over the file's",
}
_STARTUP_BARS = (
    ("ResNet-50", "build", 1.0),
    ("ResNet-50", "size", 1.02),
    ("MobileNetV2", "command", 2.5),
)
_INTRODUCTION = """\
# Results

How long explanations take, as multiples of the runtime's forward pass alone, which is what a
deployed model costs anyway. All contenders of a line ran by turns in one process, with {threads}
threads; medians. `python -m benchmarks.speed` measures and writes this page.

- *portable*: the explanation model as it is written; *lowered*: the form that `analyzer` runs on
  the device, on the CPU a picture a run (four where dense layers hold most of the weights) and as
  many runs side by side as there are threads;
  *one run*: the whole batch in one, as the others do; *apart*: one lowered model for each map
  instead of one forward pass for all.
- Weights are random and seeded, the same for all; pictures are noise of 224 × 224. "8 bits" is a
  trained network's deployed file: its forward pass computes in integers.
- *captum*'s Grad-CAM is its `LayerGradCam`, upsampled. pytorch-grad-cam runs as its README has it,
  with a network whose parameters ask for gradients. The *training build* of the runtime, frozen
  since 1.19.2, runs in a process of its own.

"""


def read(path: Path) -> list[Row]:
    """The newest row of each device, network, batch and task, in that order."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = (json.loads(text) for text in lines)
    newest = {(_device(row), row["network"], row["batch"], row["task"]): row for row in rows}
    places = {network: place for place, network in enumerate(NETWORKS)}

    def place(row: Row) -> tuple[str, int, int]:
        return _device(row), places.get(row["network"], -1), row["batch"]

    return sorted(newest.values(), key=place)


def _device(row: Row) -> str:
    return str(row.get("device", "cpu"))


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the page."""
    if rows:
        path.write_text("\n".join(_page(rows)) + "\n", encoding="utf-8")


def _page(rows: Sequence[Row]) -> Iterator[str]:
    cpu, cuda = ([row for row in rows if _device(row) == device] for device in ("cpu", "cuda"))
    yield _INTRODUCTION.format(threads=rows[0]["threads"])
    if cpu:
        yield from _bars(cpu)
        yield from _tasks(cpu, "")
        yield from _parts(cpu)
        yield from _memory(cpu)
        yield from _startup(cpu)
    if cuda:
        yield from ("", "## CUDA bars", "", line("bar", "seen", "met"), rule(0, 3))
        yield from _cuda_bars(cuda)
        yield from _tasks(cuda, "CUDA, ")
    yield from _conditions(rows)


def _tasks(rows: Sequence[Row], prefix: str) -> Iterator[str]:
    for task in dict.fromkeys(row["task"] for row in rows):
        yield from ("", f"## {prefix}{task}", "")
        shown = [c for c in CONTENDERS if any(c in r["seconds"] for r in rows if r["task"] == task)]
        yield line("network", "batch", "forward, ms", *shown, "spread")
        yield rule(3 + len(shown))
        for row in rows:
            if row["task"] == task:
                seconds = row["seconds"]
                cells = [_ratio(row, c) for c in shown]
                spread = max(timing["spread"] for timing in seconds.values())
                forward = f"{1e3 * seconds[FORWARD]['median']:.1f}"
                yield line(row["network"], row["batch"], forward, *cells, f"{spread:.0%}")


def _cuda_bars(rows: Sequence[Row]) -> Iterator[str]:
    """Everything on the device, in agreement with the CPU, and no slower than the peers at 32."""
    measured = {f"{r['network']}, {r['batch']}": r["cuda"] for r in rows if "cuda" in r}
    found: dict[str, float | None] = {
        name: sum(n for provider, n in facts["nodes"].items() if provider != _CUDA)
        for name, facts in measured.items()
    }
    yield _bar("nodes left on the CPU", found, 0.0)
    for precision in dict.fromkeys(p for facts in measured.values() for p in facts["distance"]):
        seen = ", ".join(f"{n} {f['distance'][precision]:.1e}" for n, f in measured.items())
        yield line(f"distance from the CPU's gradient, {precision}", seen, "")
    for ours, peer in (
        (LOWERED, EAGER),
        (LOWERED, "captum"),
        (LOWERED_TF32, EAGER_TF32),
        (LOWERED_HALF, EAGER_HALF),
    ):
        found = {}
        for name in NETWORKS:
            times = [_of(rows, name, 32, "gradient", contender) for contender in (ours, peer)]
            if None not in times:
                found[name] = times[0] / times[1]
        yield _bar(f"{ours} over {peer}, batch 32", found, 1.0)


def _bars(rows: Sequence[Row]) -> Iterator[str]:
    yield from ("## Bars", "", line("bar", "seen", "met"), rule(0, 3))
    for batch in sorted({row["batch"] for row in rows}):
        for limit, names in ((2.2, DENSE), (2.8, LIGHT)):
            found = {n: _of(rows, n, batch, "gradient", LOWERED) for n in names}
            yield _bar(f"gradient ≤ {limit} × forward, batch {batch}", found, limit)
        found = {n: _of(rows, n, batch, "Grad-CAM", LOWERED) for n in (*DENSE, *LIGHT)}
        twice = batch == 1  # VGG-16's dense weights are read for one picture, there and back
        text = f"Grad-CAM ≤ 1.10 × forward{' (VGG-16 1.25)' if twice else ''}, batch {batch}"
        yield _bar(text, found, 1.10, {"VGG-16": 1.25} if twice else {})
        for task, peers in (
            ("gradient", ("captum", EAGER)),
            ("Grad-CAM", ("pytorch-grad-cam",)),
        ):
            for peer in peers:
                yield from _against(rows, batch, task, peer)
        for task, count in (("three rules", 3), ("five classes", 5)):
            yield from _shared(rows, batch, task, count)
        peaks = {r["network"]: r["peak"] for r in rows if r["batch"] == batch and "peak" in r}
        found = {name: peak[LOWERED] / peak[EAGER] for name, peak in peaks.items() if EAGER in peak}
        yield _bar(f"peak memory of the gradient ≤ PyTorch's, batch {batch}", found, 1.0)
    for name, key, limit in _STARTUP_BARS:
        for row in rows:
            if row["network"] == name and "startup" in row:
                yield _bar(f"{_STARTUP[key]} ≤ {limit}", {name: row["startup"][key]}, limit)


def _bar(
    text: str,
    found: Mapping[str, float | None],
    limit: float,
    limits: Mapping[str, float] = MappingProxyType({}),
) -> str:
    known = {name: value for name, value in found.items() if value is not None}
    met = all(value <= limits.get(name, limit) for name, value in known.items())
    seen = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
    return line(text, seen or "not measured", _met(met) if known else "")


def _against(rows: Sequence[Row], batch: int, task: str, peer: str) -> Iterator[str]:
    times = {}
    for name in (*DENSE, *LIGHT):
        ours, theirs = (_of(rows, name, batch, task, c) for c in (LOWERED, peer))
        if ours is not None and theirs is not None:
            times[name] = theirs / ours
    if times:
        mean = geometric_mean(times.values())
        least = 4.0 if task == "Grad-CAM" else 1.3
        seen = ", ".join(f"{name} {value:.2f}" for name, value in times.items())
        text = f"{task}: {peer}'s time over ours, > 1 and ≥ {least} in the mean, batch {batch}"
        yield line(text, f"{mean:.2f} ({seen})", _met(min(times.values()) > 1 and mean >= least))


def _shared(rows: Sequence[Row], batch: int, task: str, k: int) -> Iterator[str]:
    """What k backward passes over one forward cost, beside k runs: at most 1.1 (1+kB)/(k+kB)."""
    shares = {}
    for name in (*DENSE, *LIGHT):
        together, apart = (_of(rows, name, batch, task, c) for c in (LOWERED, APART))
        if together is not None and apart is not None:
            backward = apart / k - 1
            shares[name] = together / apart / ((1 + k * backward) / (k + k * backward))
    if shares:
        seen = ", ".join(f"{name} {value:.2f}" for name, value in shares.items())
        text = f"{task} over one forward ≤ 1.10 × what sharing it must save, batch {batch}"
        yield line(text, seen, _met(max(shares.values()) <= 1.10))


def _parts(rows: Sequence[Row]) -> Iterator[str]:
    """Where the time of the lowered gradient goes: what holds a bar that is missed."""
    measured = [row for row in rows if "parts" in row]
    if not measured:
        return
    yield from ("", "## What forward and gradient consist of", "")
    yield "The lowered model's nodes, measured one by one, as multiples of the forward pass alone."
    yield "Of eight pictures: those of a run on one thread, as many at once as there are threads."
    yield ""
    yield line("network", "batch", *PARTS, "sum")
    yield rule(2 + len(PARTS))
    for row in measured:
        forward = row["seconds"][FORWARD]["median"]
        seconds = [row["parts"].get(part, 0.0) for part in PARTS]
        cells = (f"{part / forward:.2f}" for part in (*seconds, sum(seconds)))
        yield line(row["network"], row["batch"], *cells)


def _memory(rows: Sequence[Row]) -> Iterator[str]:
    yield from ("", "## Peak memory of forward and gradient, MiB of the whole process", "")
    yield line("network", "batch", LOWERED, EAGER)
    yield rule(3)
    for row in rows:
        if "peak" in row:
            known = (row["peak"].get(c) for c in (LOWERED, EAGER))
            yield line(
                row["network"], row["batch"], *("" if p is None else f"{p:.0f}" for p in known)
            )


def _startup(rows: Sequence[Row]) -> Iterator[str]:
    """What comes before the first map."""
    yield from ("", "## Before the first map", "")
    yield "Seconds, the best of five: canonical form and explanation model; lowering it, opening a"
    yield "session and the first run; `onnx-analyzer explain` from cold (bar: 2.5 for MobileNetV2)."
    yield "And the explanation model's bytes over the file's."
    yield ""
    yield line("network", "build", "open", "command", "size")
    yield rule(4)
    for row in rows:
        if "startup" in row:
            found = row["startup"]
            cells = [f"{found[name]:.2f}" for name in ("build", "open", "command")]
            yield line(row["network"], *cells, f"{found['size']:.4f}")


def _conditions(rows: Sequence[Row]) -> Iterator[str]:
    yield from ("", "## Conditions", "")
    for facts in dict.fromkeys(
        (row["date"], row["processor"], row["cores"], tuple(sorted(row["versions"].items())))
        for row in rows
    ):
        date, processor, cores, versions = facts
        listed = ", ".join(f"{name} {version}" for name, version in versions)
        yield f"- {date}: {processor}, {cores} cores; {listed}."
    present = fingerprint(), lowering_fingerprint()
    current = sum((row.get("code"), row.get("lowering")) == present for row in rows)
    yield f"- {current} of {len(rows)} lines were measured with the present rewriter and lowering."
    absent = {f"{c}, {r['network']}: {why}" for r in rows for c, why in r["absent"].items()}
    if absent:
        yield from ("", "Not run:", "", *(f"- {text}" for text in sorted(absent)))


def _of(rows: Sequence[Row], network: str, batch: int, task: str, contender: str) -> float | None:
    """A contender's time over the forward's."""
    for row in rows:
        if (row["network"], row["batch"], row["task"]) == (network, batch, task):
            timing = row["seconds"].get(contender)
            if timing is not None:
                return float(timing["median"] / row["seconds"][FORWARD]["median"])
    return None


def _ratio(row: Row, contender: str) -> str:
    timing = row["seconds"].get(contender)
    return "" if timing is None else f"{timing['median'] / row['seconds'][FORWARD]['median']:.2f}"


def _met(met: bool) -> str:
    return "yes" if met else "**no**"
