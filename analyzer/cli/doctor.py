"""`onnx-analyzer doctor`: what is installed, which providers really load and what is missing."""

from __future__ import annotations

import click

from analyzer.cli import options
from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.terminal import heading, printable, put, put_json, put_table

SCHEMA_VERSION = 1


@click.command("doctor", short_help="Say what is installed and what is missing.")
@click.option(
    "--device",
    type=click.Choice(("cpu", "cuda")),
    default="cpu",
    show_default=True,
    help="What has to work here: with cuda, a CUDA provider that does not load is a failure.",
)
@options.output_format("text", "json")
@options.debug
def command(device: str, form: str) -> ExitCode:
    """Say what is installed, which execution providers really load, and what is missing.

    The exit code is 6 where models cannot be explained on this device.
    """
    from analyzer.doctor import diagnose

    diagnosis = diagnose(need_cuda=device == "cuda")
    if form == "json":
        put_json({"schema_version": SCHEMA_VERSION, **diagnosis.as_dict()}, indent=2)
        return ExitCode.OK if diagnosis.healthy else ExitCode.ENVIRONMENT
    put(f"Python {diagnosis.python} on {diagnosis.platform}")
    heading("Packages")
    put_table((name, version or "not installed") for name, version in diagnosis.packages.items())
    heading("Execution providers")
    put_table(
        (name, "loads" if loads else "does not load") for name, loads in diagnosis.providers.items()
    )
    heading("OpenCV")
    put(f"  {printable(diagnosis.opencv)}")
    for finding in diagnosis.findings:
        heading("Wrong" if finding.blocking else "Note")
        put(f"  {printable(finding.what)}")
        put(f"  remedy: {printable(finding.remedy)}")
    heading("Verdict")
    verdict = "ready" if diagnosis.healthy else f"not ready to explain models on {device}"
    put(f"  {verdict}")
    return ExitCode.OK if diagnosis.healthy else ExitCode.ENVIRONMENT
