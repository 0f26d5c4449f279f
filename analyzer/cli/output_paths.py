"""Where results go: whether it can be written is found out before the work starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from analyzer.errors import UsageError


def folder_must_be_writable(folder: Path) -> None:
    """Raise `UsageError` if `folder` could not be made or written into.

    Nothing is created: a call that fails later leaves no empty folder behind.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise _refusal(folder, f"{there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _refusal(folder, f"no permission in {there}")


def file_must_be_writable(file: Path) -> None:
    """Raise `UsageError` if `file` is a folder, or its folder could not be made or written into."""
    if file.is_dir():
        raise _refusal(file, "it is a folder, and one file is written")
    folder_must_be_writable(file.parent)


def must_not_replace(outputs: Iterable[Path], model: Iterable[Path]) -> None:
    """Raise `UsageError` if one of the `outputs` is one of the `model`'s own files."""
    for output in outputs:
        for file in model:
            if output.exists() and output.samefile(file):
                raise _refusal(output, "the model itself is kept there")


def _refusal(output: Path, reason: str) -> UsageError:
    return UsageError(f"cannot write to {output}: {reason}; choose another place with -o")
