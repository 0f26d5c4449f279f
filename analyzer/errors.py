"""The exception tree of the analyzer, with the exit code that the command line gives each.

    AnalyzerError
    ├── UsageError              2   an unknown name, targets that do not fit, an unwritable output
    ├── InputError              3   a picture that cannot be used
    │   └── ImageError          3   a picture that does not decode, or has the wrong channel count
    ├── ModelRejectedError      4   no ONNX, damaged, no image input, an operator without a rule
    └── MissingProviderError    6   a provider or library that was asked for does not load

Every message is one line: what, where, what to do.
"""

import difflib
from collections.abc import Iterable


class AnalyzerError(Exception):
    """Base of every error that the analyzer raises on purpose."""

    exit_code = 70

    def __init__(self, message: str) -> None:
        """Keep the message to one line, whatever a library put into it."""
        super().__init__(" ".join(message.split()))


class UsageError(AnalyzerError):
    """The call asks for something that does not exist or does not fit."""

    exit_code = 2


class InputError(AnalyzerError):
    """An input of the model cannot be made from what was given."""

    exit_code = 3


class ImageError(InputError):
    """A picture does not decode, or does not fit the model's channels."""

    exit_code = 3


class ModelRejectedError(AnalyzerError):
    """The model cannot be read, run or differentiated."""

    exit_code = 4


class MissingProviderError(AnalyzerError):
    """A required execution provider or library is missing."""

    exit_code = 6


class ExplanationWarning(UserWarning):
    """Valid, but in need of a second look: an empty map, a rule that never applied, a guess."""


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Words for the end of a message: the known names closest to `name`, or nothing."""
    pool = list(dict.fromkeys(known))
    folded = {candidate.casefold(): candidate for candidate in pool}
    close = [folded[k] for k in difflib.get_close_matches(name.casefold(), folded, n=limit)]
    close += [c for c in pool if name.casefold() in c.casefold() and c not in close]
    return f"; nearest: {', '.join(close[:limit])}" if close else ""
