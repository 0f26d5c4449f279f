"""Files appear whole or not at all."""

import os
import secrets
from pathlib import Path

from analyzer.errors import UsageError


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename.

    Raises:
        UsageError: The folder does not exist or cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror or error}); choose another output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        UsageError: It cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be made a folder ({error.strerror or error}); choose another output"
        ) from error
