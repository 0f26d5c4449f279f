"""What the command line prints: data on stdout, talk on stderr, nothing that a name smuggles in.

Names of layers, labels and files come from strangers' models. `printable` takes out what a terminal
would obey (escape sequences, other control characters, direction overrides) and what would break
the promise of one line per message.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

T = TypeVar("T")

# CSI, OSC (up to its terminator, or the end) and the other escapes of ECMA-48.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d).*?(?:\x07|\x1b\\|\x9c|$)|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co"})
_BLANKS = re.compile(r"\s+")


def printable(text: object) -> str:
    """`text` on one line, without terminal escapes, control and invisible format characters."""
    line = _BLANKS.sub(" ", _ESCAPES.sub("", str(text)))
    return "".join(c for c in line if unicodedata.category(c) not in _OBEYED).strip()


def colors_wanted() -> bool | None:
    """False where the user wants none (NO_COLOR, a dumb terminal); None leaves it to the stream."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def say(message: object) -> None:
    """One line of talk, on stderr."""
    click.echo(printable(message), err=True, color=colors_wanted())


def say_all(lines: Iterable[str]) -> None:
    """Lines of talk, on stderr; their columns stay."""
    for line in lines:
        words = (printable(word) for word in line.split(" "))
        click.echo(" ".join(words), err=True, color=colors_wanted())


def say_device(asked: str, reason: str) -> None:
    """What "auto" took and why, on stderr; nothing about a device that was asked for by name."""
    if asked == "auto":
        say(f"device auto: {reason}")


def complain(message: object) -> None:
    """One line that says what went wrong, on stderr."""
    prefix = click.style("error:", fg="red", bold=True)
    click.echo(f"{prefix} {printable(message)}", err=True, color=colors_wanted())


def put(line: str = "") -> None:
    """One line of data, on stdout. Whatever came from a file goes through `printable` first."""
    click.echo(line, color=colors_wanted())


def put_json(document: object, *, indent: int | None = None) -> None:
    """One JSON document, on stdout; ASCII only, so that it cannot carry an escape sequence."""
    click.echo(json.dumps(document, indent=indent, default=str, allow_nan=False))


def heading(text: str) -> None:
    """The title of a section of text output."""
    put(click.style(printable(text), bold=True))


def put_table(rows: Iterable[Sequence[object]], indent: str = "  ") -> None:
    """Rows as columns of equal width; every cell is made printable."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        return
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        put(f"{indent}{line}".rstrip())


def progress(items: Sequence[T], label: str, *, streamed: bool) -> ProgressBar[T]:
    """A context manager to iterate over `items` under a progress bar on stderr.

    There is no bar where stderr is no terminal, for a single item, or where `streamed` results
    show the progress themselves because stdout is a terminal too.
    """
    told_already = streamed and sys.stdout.isatty()
    hidden = len(items) < 2 or told_already or not sys.stderr.isatty()
    return click.progressbar(items, label=label, file=sys.stderr, hidden=hidden)
