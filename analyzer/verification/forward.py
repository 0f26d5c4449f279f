"""The numbers that the file itself gives: do they survive both rewrites?"""

from collections.abc import Sequence
from typing import Final

import onnx
from onnx import TensorProto

from analyzer.session import Optimization, Session
from analyzer.verification import distance
from analyzer.verification.result import Outcome
from analyzer.verification.subject import Array, Subject
from graph_rewrites.canonical import canonical_facts

EXACT, UNTOUCHED, REWRITTEN, WIDENED = 0.0, 1e-6, 1e-5, 2e-3
# Sound files stay below 4e-3 once the runtime rounds at other places; a wrong rewrite is far off.
REQUANTISED: Final = 2e-2
_INTEGER_OPERATORS: Final = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantize")
_GONE: Final = frozenset({"Dropout", "Identity", "Constant"})  # taken out, nothing recomputed


def canonical_outputs(subject: Subject) -> Outcome:
    """The canonical model against the file."""
    return _compare(subject, subject.loaded.model)


def explanation_outputs(subject: Subject) -> Outcome:
    """The explanation model against the file."""
    return _compare(subject, subject.explanation)


def _compare(subject: Subject, model: onnx.ModelProto) -> Outcome:
    """Both under the same options, and without the optimiser, which would round at other places.

    Quantised files are compared as they are deployed, in the runtime's integer kernels.

    Raises:
        NotRunError: The file's own outputs are not finite, so that agreeing with them says nothing.
    """
    level: Optimization = "all" if subject.loaded.quantised else "none"
    original, rewritten = (Session(m, optimization=level) for m in (subject.loaded.original, model))
    takes = {value.name for value in model.graph.input}
    names = original.outputs
    expected: list[Sequence[Array]] = []
    found: list[Sequence[Array]] = []
    for images in subject.batches(subject.file_batch):
        feeds = subject.feeds(images)
        wanted = original.run({subject.image: images})
        given = rewritten.run({k: v for k, v in feeds.items() if k in takes}, names)
        expected.append([wanted[name] for name in names])
        found.append([given[name] for name in names])
    pairs = zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True)
    figure = max(distance.of_outputs(ours, theirs) for ours, theirs in pairs)
    bar, why = _bar(subject)
    if figure <= bar:
        own = dict(zip(names, zip(*expected, strict=True), strict=True))
        distance.must_be_finite(own, "the file's own outputs")
    return Outcome(figure, bar, why)


def _bar(subject: Subject) -> tuple[float, str]:
    facts = canonical_facts(subject.loaded.model)
    rewritten = set(facts["rewritten"]) - _GONE
    if facts["widened"]:
        return WIDENED, f"{' and '.join(facts['widened'])} is computed in float32"
    if not subject.loaded.quantised:
        if rewritten:
            return REWRITTEN, f"expressed by other operators: {', '.join(sorted(rewritten))}"
        return UNTOUCHED, "no operator was rewritten"
    if not rewritten:
        return EXACT, "a quantised file keeps every bit"
    if all(op.startswith(_INTEGER_OPERATORS) for op in rewritten) and _takes_bytes(subject):
        return EXACT, "the runtime finds the same integer kernels again"
    return REQUANTISED, "rewritten and quantised: the runtime rounds at other places"


def _takes_bytes(subject: Subject) -> bool:
    """Whether all activations are uint8, for which the runtime has the same kernels either way."""
    graph = subject.loaded.model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    points = [node.input[2:3] for node in graph.node if node.op_type == "QuantizeLinear"]
    return all(not p or types.get(p[0]) == TensorProto.UINT8 for p in points)
