"""Operators that have no rule, and why: each reason goes on with what to do instead.

They stop an explanation only where they lie between what is differentiated and the explained
tensor. Behind a detector's boxes, or in size arithmetic, they pass unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graph_rewrites.activity import CONTROL_FLOW
from graph_rewrites.errors import MissingRuleError, UnsupportedControlFlowError
from graph_rewrites.node import Node

_ELSEWHERE = "explain a tensor before it, or choose a layer behind it"
_BITS = f"it works on the bits of numbers, where nothing is smooth; {_ELSEWHERE}"
_SEQUENCE = (
    "it deals in sequences of tensors, which have no cotangent; export the model with Split and "
    "Concat, as the exporters of today do, or choose a layer behind it"
)
_OPTIONAL = (
    "it deals in values that may be absent, which have no cotangent; export the model for the "
    "inputs that it is run with, or choose a layer behind it"
)
_TEXT = "it deals in text, which has no gradient; choose a layer behind it"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "BitCast": _BITS,
        "BitShift": _BITS,
        "BitwiseAnd": _BITS,
        "BitwiseNot": _BITS,
        "BitwiseOr": _BITS,
        "BitwiseXor": _BITS,
        "ConcatFromSequence": _SEQUENCE,
        "ImageDecoder": "it reads a compressed picture; choose what it makes, or a layer behind it",
        "MelWeightMatrix": "it makes constants out of sizes; export the model with fixed sizes",
        "Optional": _OPTIONAL,
        "OptionalGetElement": _OPTIONAL,
        "OptionalHasElement": _OPTIONAL,
        "RegexFullMatch": _TEXT,
        "SequenceAt": _SEQUENCE,
        "SequenceConstruct": _SEQUENCE,
        "SequenceEmpty": _SEQUENCE,
        "SequenceErase": _SEQUENCE,
        "SequenceInsert": _SEQUENCE,
        "SequenceLength": _SEQUENCE,
        "SequenceMap": _SEQUENCE,
        "SplitToSequence": _SEQUENCE,
        "StringConcat": _TEXT,
        "StringNormalizer": _TEXT,
        "StringSplit": _TEXT,
        "TfIdfVectorizer": "it counts words, which has no gradient; choose a layer behind it",
        "Unique": (
            "how many values it yields depends on the picture, and no framework gives it a "
            f"gradient; {_ELSEWHERE}"
        ),
    }
)
"""Operator -> reason and remedy."""


def refusal(node: Node) -> MissingRuleError | UnsupportedControlFlowError:
    """The error that tells why a node without a rule stops the sweep, and what to do."""
    if node.op_type in CONTROL_FLOW:
        return UnsupportedControlFlowError(
            f"{node} lies between the explained tensor and what it is differentiated by; "
            "export the model without it, or explain a tensor before it"
        )
    if node.domain:
        remedy = f"write it with operators of ai.onnx instead of those of {node.domain!r}"
    elif node.op_type in REFUSED:
        return MissingRuleError(f"{node} has no rule: {REFUSED[node.op_type]}")
    else:
        remedy = f"add one with DEFAULT_RULES.override({node.op_type}=my_vjp)"
    return MissingRuleError(f"{node} has no rule; {remedy}, or choose a later layer")
