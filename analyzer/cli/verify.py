"""`onnx-analyzer verify MODEL`: is what we add to this very file right?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options
from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.terminal import heading, put, put_json, put_table, say, say_all

if TYPE_CHECKING:
    from analyzer import Analyzer
    from analyzer.profile import Profile
    from analyzer.verification import Check, Verification

SCHEMA_VERSION = 1
QUICK_DIRECTIONS = 1


@click.command("verify", short_help="Check the explanation model of a file.")
@options.model
@options.explained
@options.layer
@click.option(
    "--quick",
    is_flag=True,
    help="Check each gradient in one direction instead of four.",
)
@options.preprocess
@options.profile
@options.output_format("text", "json")
@options.debug
def command(
    model: Path,
    explained: str | None,
    layer: str | None,
    quick: bool,
    preprocess: str | None,
    profile: bool,
    form: str,
) -> ExitCode:
    """Check on MODEL itself that its explanation model is right.

    Outputs against the file's own; the gradients at the picture and at the CAM layer against
    differences in float64; the explanation model optimised and not, lowered and not, images
    together and apart, and on the CPU and CUDA. Nothing but the file is needed; a large one of
    fixed size takes a minute or more. The exit code is 1 where a check fails.
    """
    import analyzer
    from analyzer.verification import DIRECTIONS, verify

    loaded = analyzer.load(model, preprocess=preprocess)
    directions = QUICK_DIRECTIONS if quick else DIRECTIONS
    found = verify(loaded, output=explained, layer=layer, directions=directions, progress=say)
    profiled = _profiled(loaded, explained) if profile else None
    if form == "json":
        document = {"schema_version": SCHEMA_VERSION, **found.as_dict()}
        if profiled is not None:
            document["profile"] = profiled.as_dict()
        put_json(document, indent=2)
    else:
        _put_text(found)
        say_all(profiled.lines() if profiled is not None else ())
    return ExitCode.OK if found.passed else ExitCode.FINDINGS


def _profiled(loaded: Analyzer, explained: str | None) -> Profile:
    """Where the time of one picture's gradient goes."""
    from analyzer.batching import distinct_pair

    (noise, _) = distinct_pair(loaded.image, loaded.preprocess)
    return loaded.profile(noise[None], "gradient", output=explained)


def _put_text(found: Verification) -> None:
    heading(f"{found.model}  sha256 {found.sha256[:16]}…")
    put_table(
        [
            ("picture", " × ".join(map(str, found.picture))),
            ("layer", found.layer or "none that a CAM can use"),
        ]
    )
    heading("Checks")
    put_table([("verdict", "what", "error", "allowed", ""), *map(_row, found.checks)])
    heading("Verdict")
    counts = [f"{found.count(v)} {v}" for v in ("ok", "failed", "not run") if found.count(v)]
    put(f"  {'right' if found.passed else 'wrong'}: {', '.join(counts)}")


def _row(check: Check) -> tuple[str, ...]:
    figures = ("" if x is None else f"{x:.1e}" if x else "0" for x in (check.figure, check.bar))
    return check.verdict, check.title, *figures, check.note
