"""The exit codes of every verb: scripts branch on them, so a number never changes its meaning."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    FAILED_IMAGES = 3
    MODEL_REJECTED = 4
    NOTHING_TO_DO = 5
    ENVIRONMENT = 6
    BUG = 70
    INTERRUPTED = 130
