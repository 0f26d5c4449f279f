"""`python -m benchmarks.conformance`: measure every member that has no result yet."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.conformance.comparison import measure, renew
from benchmarks.conformance.members import members
from benchmarks.conformance.results import (
    AGREES,
    DIFFERS,
    FAILED,
    Result,
    append,
    read,
    write_table,
)

_PATIENCE = 1800  # seconds for one member


@click.command()
@click.argument("members", nargs=-1)
@click.option("--exports", type=click.Path(path_type=Path), help="Keep the exported files here.")
@click.option("--again", is_flag=True, help="Also what failed, or what other code made.")
@click.option("--child", is_flag=True, hidden=True)
def main(members: tuple[str, ...], exports: Path | None, again: bool, child: bool) -> None:
    """Measure MEMBERS ("timm/resnet10t", or a zoo: "torchvision"); all where none is named."""
    if child:
        assert exports is not None
        click.echo(json.dumps(asdict(_measure(members[0], exports))))
        return
    if exports is not None:
        exports.mkdir(parents=True, exist_ok=True)
    known = read()
    for member in _wanted(members):
        found = known.get(member)
        if found and not (again and (found.verdict == FAILED or not found.lowering_current)):
            continue
        with TemporaryDirectory() as scratch:
            result = _in_a_process(member, exports or Path(scratch))
        append(result)
        click.echo(f"{result.member}: {result.verdict} {result.reason}", err=True)
        write_table(read())


def _wanted(names: tuple[str, ...]) -> list[str]:
    every = members()
    if not names:
        return every
    return [m for name in names for m in every if m == name or m.startswith(f"{name}/")]


def _measure(member: str, exports: Path) -> Result:
    """A member, or what the present code makes otherwise of one that is known."""
    zoo = member.partition("/")[0]
    if zoo == "keras":
        from benchmarks.conformance.keras_reference import KerasReference as Reference
    else:
        from benchmarks.conformance.torch_reference import TorchReference as Reference
    known = read().get(member)
    if known is not None and known.verdict in (AGREES, DIFFERS):
        return renew(known, Reference, exports)
    return measure(member, Reference, exports)


def _in_a_process(member: str, exports: Path) -> Result:
    """A process per member: what it leaks, or how it dies, is its own affair."""
    command = [sys.executable, "-m", "benchmarks.conformance", member, "--child"]
    try:
        done = subprocess.run(
            [*command, "--exports", str(exports)], capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return Result(member, FAILED, f"not done within {_PATIENCE} s")
    if done.returncode:
        said = done.stderr.strip().splitlines() if done.returncode > 0 else []  # else it was killed
        return Result(member, FAILED, (said or [f"exit code {done.returncode}"])[-1][:300])
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
