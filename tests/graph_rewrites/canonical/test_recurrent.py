"""LSTM, GRU and RNN as a Scan compute what the runtime's kernels compute, in every corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graph_rewrites.canonical import canonicalize
from graph_rewrites.canonical.decompose import decompose
from graph_rewrites.canonical.recurrent import SCANS
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.graph import Graph
from tests.graph_rewrites.runtime import run

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
T, N, WIDTH, H = 4, 2, 3, 5
Feeds = dict[str, np.ndarray]


def recurrent(
    op_type: str,
    given: str = "",
    *,
    lengths: Sequence[int] | None = None,
    steps: int | str = T,
    opset: int = 21,
    **attributes: Any,
) -> tuple[onnx.ModelProto, Feeds]:
    """A model of one recurrent node and what to feed it.

    Args:
        op_type: the operator.
        given: letters of the optional inputs that are there: B, h, c, P.
        lengths: the lengths of the sequences, where they differ.
        steps: the declared length of the sequence.
        opset: operator set version.
        attributes: of the node.
    """
    rng = np.random.default_rng(5)
    gates, d = GATES[op_type], 2 if attributes.get("direction") == "bidirectional" else 1
    states = (N, d, H) if attributes.get("layout") else (d, N, H)
    shapes = {
        "X": (N, T, WIDTH) if attributes.get("layout") else (T, N, WIDTH),
        "W": (d, gates * H, WIDTH),
        "R": (d, gates * H, H),
        "B": (d, 2 * gates * H) if "B" in given else None,
        "lengths": None,
        "h": states if "h" in given else None,
        "c": states if "c" in given else None,
        "P": (d, 3 * H) if "P" in given else None,
    }
    feeds = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items() if s}
    declared = {k: helper.make_tensor_value_info(k, 1, v.shape) for k, v in feeds.items()}
    if steps != T:
        declared["X"] = helper.make_tensor_value_info("X", 1, [steps, N, WIDTH])
    if lengths:
        feeds["lengths"] = np.array(lengths, np.int32)
        declared["lengths"] = helper.make_tensor_value_info("lengths", TensorProto.INT32, [N])
    names = [name if name in feeds else "" for name in shapes][: 8 if op_type == "LSTM" else 6]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op_type == "LSTM" else 2]
    node = helper.make_node(op_type, names, outputs, "cell", hidden_size=H, **attributes)
    ranks = [[None] * (4 if name == "Y" else 3) for name in outputs]
    results = [helper.make_tensor_value_info(o, 1, s) for o, s in zip(outputs, ranks, strict=True)]
    graph = helper.make_graph([node], "g", [*declared.values()], results)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), feeds


def scanned(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = Graph(model)
    decompose(graph, SCANS)
    return graph.export()


CORNERS: list[dict[str, Any]] = [
    {},
    {"given": "B"},
    {"given": "Bh"},
    {"given": "Bhc", "lengths": [2, 4]},
    {"lengths": [3, 1]},
    {"given": "B", "clip": 0.3},
    {"given": "Bhc", "clip": 0.3, "lengths": [4, 3]},
]
CASES = [
    (op_type, {**corner, "direction": direction})
    for op_type in GATES
    for direction in ("forward", "reverse", "bidirectional")
    for corner in CORNERS
] + [
    *(("GRU", {"given": given, "linear_before_reset": 1}) for given in ("", "B", "h", "Bh")),
    ("GRU", {"given": "Bh", "linear_before_reset": 1, "direction": "bidirectional", "clip": 0.4}),
    *(("LSTM", {"given": given}) for given in ("P", "cP", "BhcP", "BcP")),
    ("LSTM", {"given": "BhcP", "direction": "bidirectional", "clip": 0.4}),
    *(("LSTM", {"given": given, "input_forget": 1}) for given in ("", "Bc", "hcP")),
]
ACTIVATIONS = [
    "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", "LeakyRelu", "ThresholdedRelu", "Elu",
    "HardSigmoid", "Affine", "ScaledTanh",
]  # fmt: skip
UNDEFINED = ["ThresholdedRelu", "Affine", "ScaledTanh"]
"""Those without a default: the runtime takes 0, ONNX names 1 for the first and none for others."""


@pytest.mark.parametrize(("op_type", "corner"), CASES, ids=str)
def test_the_steps_compute_the_whole(op_type: str, corner: dict[str, Any]) -> None:
    model, feeds = recurrent(op_type, **corner)
    _assert_same(run(scanned(model), feeds), run(model, feeds))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_parameters(activation: str) -> None:
    models = [
        recurrent(
            "RNN", "h", activations=[activation], activation_alpha=[0.7], activation_beta=[0.3]
        ),
        recurrent(
            "LSTM",
            "Bhc",
            activations=["HardSigmoid", activation.lower(), "ScaledTanh"] * 2,
            activation_alpha=[0.3, 0.6, 0.8, 0.4, 0.5, 0.9],
            activation_beta=[0.4, 0.9, 0.7, 0.2, 0.5, 0.6],
            direction="bidirectional",
        ),
    ]
    if activation not in UNDEFINED:
        models.append(recurrent("GRU", "B", activations=["Sigmoid", activation]))
    for model, feeds in models:
        _assert_same(run(scanned(model), feeds), run(model, feeds), 1e-4)


@pytest.mark.parametrize("op_type", GATES)
def test_one_step(op_type: str) -> None:
    model, feeds = recurrent(op_type, "B", steps=1)
    feeds["X"] = feeds["X"][:1]
    _assert_same(run(scanned(model), feeds), run(model, feeds))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op_type", GATES)
def test_the_batch_may_come_first(op_type: str, direction: str) -> None:
    given = "Bhc" if op_type == "LSTM" else "Bh"
    model, feeds = recurrent(op_type, given, direction=direction, opset=14, layout=1)
    usual, _ = recurrent(op_type, given, direction=direction, opset=14)
    turned = {k: v.swapaxes(0, 1) if k in "Xhc" else v for k, v in feeds.items()}
    expected = run(usual, turned)
    expected = {k: np.moveaxis(v, -2, 0) for k, v in expected.items()}
    _assert_same(run(canonicalize(model), feeds), expected)


@pytest.mark.parametrize("op_type", GATES)
def test_an_open_length(op_type: str) -> None:
    model, feeds = recurrent(op_type, "B", steps="L", direction="bidirectional")
    for length in (1, 7):
        feeds["X"] = np.resize(feeds["X"], (length, N, WIDTH))
        _assert_same(run(scanned(model), feeds), run(model, feeds))


@pytest.mark.parametrize("activation", [*UNDEFINED, "Gelu"])
def test_an_activation_that_is_not_defined_is_refused(activation: str) -> None:
    model, _ = recurrent("GRU", activations=["Sigmoid", activation])
    with pytest.raises(UnsupportedOperatorError, match=f"GRU .node 'cell'.*{activation}"):
        scanned(model)


def _assert_same(actual: Feeds, expected: Feeds, tolerance: float = 1e-5) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance)
