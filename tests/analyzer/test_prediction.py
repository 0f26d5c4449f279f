"""A prediction says what its numbers are."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import analyzer

from .small_models import cnn

PICTURES = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)


def ending_in(head: str, *tail: str) -> onnx.ModelProto:
    """The small network with `tail` behind its head; Mul is by 100."""
    model = cnn(head=head)
    for i, op_type in enumerate(tail):
        last = model.graph.node[-1]
        last.output[0] = f"t{i}"
        inputs = [f"t{i}", "hundred"] if op_type == "Mul" else [f"t{i}"]
        model.graph.node.append(helper.make_node(op_type, inputs, ["prob"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(100), "hundred"))
    return model


@pytest.mark.parametrize(
    ("operators", "kind", "total"),
    [
        (("LogSoftmax",), "log-probability", None),
        (("Softmax", "Log"), "log-probability", None),
        (("LogSoftmax", "Exp"), "probability", 1),
        (("Softmax", "Mul"), "score", 100),  # percent
    ],
)
def test_the_kind_of_a_prediction(operators, kind, total):
    a = analyzer.load(ending_in(*operators), preprocess="raw")
    found = a.predict(PICTURES)
    assert (a.scores.tensor, found.kind) == ("logits", kind)
    if total is not None:
        np.testing.assert_allclose(found.values.sum(1), total, rtol=1e-5)
