"""The artefacts that people ship of one network, each explained and compared with the original.

`python -m benchmarks.artefacts` takes ResNet-50, MobileNetV2 and EfficientNet-B0 in every form:
old and new opsets, as the runtime optimised it, quantised in both formats, in float16. Each is
made, explained and measured in a process of its own; what it found is one line of `results.jsonl`,
from which `benchmarks/ARTEFACTS.md` is written. An artefact that has a line is left alone.
"""
