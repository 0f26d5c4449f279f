"""Is what this package adds to a model right, on that very model? Checked without any framework.

    import analyzer
    from analyzer.verification import verify

    found = verify(analyzer.load("model.onnx"))
    for check in found.checks:
        print(check.verdict, check.title, check.figure, check.bar)

A file can hold a construct that no test has seen. So the check runs on the user's own file: the
forward against the original, the backward against differences of its own forward in float64, and
the finished explanation model against itself: optimised and not, together and apart, on each
device.
"""

from analyzer.verification.result import Check, Verification
from analyzer.verification.verifying import DIRECTIONS, verify

__all__ = ["DIRECTIONS", "Check", "Verification", "verify"]
