"""`python -m benchmarks.artefacts`: measure every artefact that has no result yet."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.artefacts.making import ARTEFACTS, NETWORKS
from benchmarks.artefacts.table import write_table
from benchmarks.conformance.fingerprints import fingerprint

_PATIENCE = 3600  # seconds for one artefact
_HERE = Path(__file__).parent


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--only", default="", help="Artefacts whose name holds this.")
@click.option("--size", default=224, help="Height and width of the pictures.")
@click.option("--again", is_flag=True, help="Also those that were measured with other code.")
@click.option("--results", type=click.Path(path_type=Path), default=_HERE / "results.jsonl")
@click.option(
    "--table", type=click.Path(path_type=Path), default=_HERE.with_name("ARTEFACTS.md")
)  # fmt: skip
@click.option("--child", hidden=True)
def main(
    networks: tuple[str, ...],
    only: str,
    size: int,
    again: bool,
    results: Path,
    table: Path,
    child: str | None,
) -> None:
    """Measure the artefacts of NETWORKS, of torchvision; of all three where none is named."""
    if child is not None:
        from benchmarks.artefacts.measuring import measure

        click.echo(json.dumps(measure(networks[0], only, size, Path(child))))
        return
    known, code = read(results), fingerprint()
    with TemporaryDirectory() as folder:
        for network in networks or NETWORKS:
            for artefact in (name for name in ARTEFACTS if only in name):
                old = known.get((network, artefact))
                if old and "error" not in old and not (again and old["code"] != code):
                    continue
                row = _in_a_process(network, artefact, size, folder)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**row, "code": code}, sort_keys=True) + "\n")
                click.echo(f"{network}, {artefact}: {row.get('error', 'measured')}", err=True)
                write_table(list(read(results).values()), table)


def read(results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest row of every artefact, in the order of the table."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    rows = {(row["network"], row["artefact"]): row for row in map(json.loads, lines)}
    order = [(network, artefact) for network in NETWORKS for artefact in ARTEFACTS]
    return {key: rows[key] for key in order if key in rows}


def _in_a_process(network: str, artefact: str, size: int, folder: str) -> dict[str, Any]:
    """A process per artefact: what it leaks, or how it dies, is its own affair."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.artefacts", network, "--child", folder]
    command += ["--only", artefact, "--size", str(size)]
    row: dict[str, Any] = {"network": network, "artefact": artefact}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return {**row, "error": f"not done within {_PATIENCE} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {**row, "error": lines[-1][:300]}
    row |= json.loads(done.stdout.strip().splitlines()[-1])
    return {**row, "size": size, "seconds": round(time.perf_counter() - start, 1)}


if __name__ == "__main__":
    main()
