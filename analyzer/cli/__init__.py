"""`onnx-analyzer`: a thin skin over the package; each verb parses, calls and prints.

Data goes to stdout, talk to stderr. A verb's module, and with it numpy, onnx and the runtime, is
imported when the verb runs: `--help` has to be instant.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.failures import Run, report, warnings_as_talk

__all__ = ["cli", "main"]

# Every verb with its line of help. The command itself is `command` in the module of that name.
VERBS = {
    "demo": "Explain the embedded picture with the embedded model, and say where the result is.",
    "inspect": "Say before any run what a model is and what can be explained in it.",
    "explain": "Explain pictures: maps, overlays and their provenance.",
    "compile": "Write the explanation model: forward, backward and map in one ONNX file.",
    "verify": "Check the gradients and outputs of the explanation model on the file itself.",
    "doctor": "Say what is installed, which providers really load and what is missing.",
}


class VerbGroup(click.Group):
    """Loads a verb's module when it is called, and turns every failure into one line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
            raise click.UsageError(f"no verb {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # noqa: ANN401 - handed on to click as it comes
    ) -> int:
        run = Run()
        try:
            with warnings_as_talk():
                result = super().main(
                    args, prog_name, complete_var, standalone_mode=False, obj=run, **extra
                )
            code = result if isinstance(result, int) else 0
        except SystemExit:  # click's answer to a reader that has gone away, as in `| head`
            code = ExitCode.OK
        except (Exception, KeyboardInterrupt) as error:
            code = report(error, run)
        if standalone_mode:
            sys.exit(code)
        return int(code)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"onnx-analyzer {version('onnx-analyzer')}")
        ctx.exit()


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version and stop.",
)
def cli() -> None:
    """Explain the CNN you ship: saliency, guided backpropagation and Grad-CAM for ONNX models.

    Exit codes: 0 ok, 1 findings, 2 usage, 3 finished with failed images, 4 model rejected,
    5 nothing to do, 6 environment, 70 our bug, 130 interrupted.
    """


def main() -> None:
    """The entry point of the `onnx-analyzer` script."""
    cli.main(prog_name="onnx-analyzer")
