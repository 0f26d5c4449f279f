"""`python -m benchmarks.speed`: measure, and write RESULTS.md. Nothing is installed."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.conformance.fingerprints import fingerprint, lowering_fingerprint
from benchmarks.speed.machine import machine
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.table import read, write_table

RESULTS = Path(__file__).with_name("results.jsonl")
_BATCHES = {"cpu": (1, 8), "cuda": (1, 8, 32, 128)}
TABLE = Path(__file__).parents[1] / "RESULTS.md"


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--batch",
    "batches",
    type=int,
    multiple=True,
    help="1 and 8 where none is named; on CUDA 1, 8, 32 and 128.",
)
@click.option("--task", "tasks", multiple=True, help="One of the tasks; all where none is named.")
@click.option("--threads", default=2, show_default=True, help="Of every contender.")
@click.option("--budget", default=6.0, show_default=True, help="Seconds for one task.")
@click.option("--exports", type=click.Path(path_type=Path), help="Keep the exported files here.")
@click.option(
    "--training-python",
    type=click.Path(exists=True, path_type=Path),
    help="The interpreter of an environment with onnxruntime-training; else it takes no part.",
)
@click.option("--child", is_flag=True, hidden=True)
def main(
    networks: tuple[str, ...],
    device: str,
    batches: tuple[int, ...],
    tasks: tuple[str, ...],
    threads: int,
    budget: float,
    exports: Path | None,
    training_python: Path | None,
    child: bool,
) -> None:
    """Measure NETWORKS ("ResNet-50"), or all: every task, batch and contender, by turns.

    Those of Keras need an environment with TensorFlow, those of the assets their folder in
    ONNX_ANALYZER_SHARED.

    A network has a process of its own, and within it every contender takes its turn, so that one
    line compares what ran under the same conditions. Results of earlier runs are kept until their
    network, batch and task are measured again.
    """
    if child:
        assert exports is not None
        _measure(networks[0], device, batches[0], tasks, threads, budget, exports, training_python)
        return
    batches = batches or _BATCHES[device]
    options = [f"--device={device}", f"--threads={threads}", f"--budget={budget}"]
    options += [f"--task={task}" for task in tasks]
    if training_python is not None:
        options.append(f"--training-python={training_python}")
    with TemporaryDirectory() as scratch:
        folder = exports or Path(scratch)
        for title in networks or NETWORKS:
            for batch in batches:
                command = [sys.executable, "-m", "benchmarks.speed", title, "--child"]
                command += [f"--batch={batch}", f"--exports={folder}", *options]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
                facts = {
                    "date": _today(),
                    "code": fingerprint(),
                    "lowering": lowering_fingerprint(),
                }
                facts |= machine(device)
                with RESULTS.open("a", encoding="utf-8") as file:
                    for line in done.stdout.splitlines():
                        row = {**json.loads(line), **facts}
                        file.write(json.dumps(row, sort_keys=True) + "\n")
                write_table(read(RESULTS), TABLE)


def _measure(
    title: str,
    device: str,
    batch: int,
    tasks: tuple[str, ...],
    threads: int,
    budget: float,
    exports: Path,
    training_python: Path | None,
) -> None:
    """Print one line of JSON for each task."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)  # read when TensorFlow starts

    from benchmarks.speed.breakdown import breakdown
    from benchmarks.speed.contenders import TASKS, Task
    from benchmarks.speed.memory import CONTENDERS, peak
    from benchmarks.speed.networks import open_network
    from benchmarks.speed.on_cuda import on_cuda
    from benchmarks.speed.startup import startup
    from benchmarks.speed.timing import by_turns

    opened = open_network(NETWORKS[title], exports)
    for name in tasks or TASKS:
        contenders, absent = Task(
            opened, name, batch, threads, device, training_python
        ).contenders()
        timings = by_turns(contenders, budget)
        row: dict[str, Any] = {"network": title, "batch": batch, "task": name, "threads": threads}
        row["device"] = device
        row["seconds"] = {key: asdict(timing) for key, timing in timings.items()}
        row["absent"] = absent
        if name == "gradient" and device == "cuda":
            row["cuda"] = on_cuda(opened, batch, threads)
        elif name == "gradient":
            row["parts"] = breakdown(opened, batch, threads)
            known = CONTENDERS if opened.network.zoo in ("torchvision", "timm") else CONTENDERS[:1]
            row["peak"] = {c: peak(title, exports, c, batch, threads) for c in known}
            if batch == 1:
                row["startup"] = startup(opened, threads)
        click.echo(json.dumps(row))
        click.echo(f"{title}, {batch}, {name}: " + _said(row), err=True)


def _said(row: dict[str, Any]) -> str:
    forward = row["seconds"]["forward"]["median"]
    ratios = (f"{key} {t['median'] / forward:.2f}" for key, t in row["seconds"].items())
    return ", ".join(ratios)


def _today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


if __name__ == "__main__":
    main()
