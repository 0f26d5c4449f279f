"""The conformance run: whole model zoos, each model's gradients against its own framework's.

`python -m benchmarks.conformance` takes every member in turn, each in a process of its own, appends
one line to `results.jsonl` and writes `benchmarks/CONFORMANCE.md` from those lines. A member that
has a line is left alone, so the run can be stopped and taken up again.
"""
