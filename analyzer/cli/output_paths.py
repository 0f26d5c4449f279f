"""Where results go: whether it can be written is found out before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

from analyzer.errors import UsageError


def must_be_writable(output: Path) -> None:
    """Raise `UsageError` if the folder (or the `.npz` file) `output` could not be written.

    Nothing is created: a call that fails later leaves no empty folder behind.
    """
    folder = output.parent if output.suffix == ".npz" else output
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        reason = f"{there} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = f"no permission in {there}"
    else:
        return
    raise UsageError(f"cannot write to {output}: {reason}; choose another place with -o")
