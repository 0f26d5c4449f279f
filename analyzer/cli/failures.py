"""From whatever went wrong to one line on stderr and an exit code; a traceback only on request."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.terminal import complain, say
from analyzer.errors import AnalyzerError

_OURS = ("analyzer", "graph_rewrites")


@dataclass
class Run:
    """What one call of the command line carries from its options to its end."""

    debug: bool = False


def report(error: BaseException, run: Run) -> int:
    """Print `error` as one line and return the exit code that belongs to it."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return ExitCode.USAGE
    if run.debug:
        traceback.print_exception(error)
    code, message = _verdict(error)
    complain(message)
    return code


@contextmanager
def warnings_as_talk() -> Iterator[None]:
    """Say our own warnings on stderr, each once; libraries' are not for the user."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        ours = category.__module__.partition(".")[0] in _OURS
        if ours and str(message) not in said:
            said.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def _verdict(error: BaseException) -> tuple[ExitCode, str]:
    match error:
        case click.Abort() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED, "interrupted; what was finished is complete"
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "onnx-analyzer"
            return ExitCode.USAGE, f"{error.format_message().rstrip('.')}; see '{path} --help'"
        case click.ClickException():
            return ExitCode.USAGE, error.format_message()
        case AnalyzerError():
            return ExitCode(error.exit_code), str(error)
        case ImportError() if (error.name or "").partition(".")[0] not in _OURS:
            return ExitCode.ENVIRONMENT, f"{error}; 'onnx-analyzer doctor' says what is missing"
        case MemoryError():
            return ExitCode.ENVIRONMENT, "out of memory; use a smaller model or picture"
        case OSError():
            return ExitCode.ENVIRONMENT, f"the system refused: {error}"
    return ExitCode.BUG, _our_bug(error)


def _our_bug(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"a bug of ours{where}: {what}; please report it with the same call's output of --debug"
