"""Attention, RotaryEmbedding and TensorScatter are taken apart, in every corner of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import graph_rewrites as gr
from graph_rewrites.canonical import canonicalize
from graph_rewrites.errors import NoGradientPathError
from graph_rewrites.sharp import directional_error
from tests.graph_rewrites.runtime import run, session

Feeds = dict[str, np.ndarray]
Corner = tuple[str, Sequence[np.ndarray | None], dict[str, Any], str]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def integers(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def one_node(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    attributes: dict[str, Any],
    outputs: str,
    opset: int,
) -> tuple[onnx.ModelProto, Feeds]:
    """A model of one node, and what to feed it; `outputs` are the names of those that it has."""
    feeds = {f"x{i}": value for i, value in enumerate(inputs) if value is not None}
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    results = [name.strip("-") for name in outputs.split()]
    node = helper.make_node(op_type, names, results, "node", **attributes)
    values = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    untyped = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in results if o]
    graph = helper.make_graph([node], "g", values, untyped)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        if not value.type.tensor_type.HasField("shape"):
            value.CopyFrom(helper.make_tensor_value_info(value.name, 1, [None] * 4))
    return inferred, feeds


Q, K, V = normal(2, 4, 3, 8), normal(2, 4, 5, 8), normal(2, 4, 5, 6)
PAST = [normal(2, 4, 2, 8), normal(2, 4, 2, 6)]
SOME = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], bool)
"""Which keys each query may see: the second one sees none."""
X, CACHES, PLACES = (
    normal(2, 3, 4, 8),
    [normal(10, 4), normal(10, 4)],
    integers(*[[0, 9, 4, 4]] * 2),
)
ATTENTION: dict[str, Corner] = {
    "plain": ("Attention", [Q, K, V], {}, "Y"),
    "scale": ("Attention", [Q, K, V], {"scale": 0.3}, "Y"),
    "softcap": ("Attention", [Q, K, V], {"softcap": 2.0}, "Y"),
    "causal": ("Attention", [Q, K, V], {"is_causal": 1}, "Y"),
    "more queries than keys": ("Attention", [K, Q, Q], {"is_causal": 1}, "Y"),
    "added": ("Attention", [Q, K, V, normal(3, 5)], {}, "Y"),
    "added to each image": ("Attention", [Q, K, V, normal(2, 1, 3, 5)], {"is_causal": 1}, "Y"),
    "mask": ("Attention", [Q, K, V, SOME], {}, "Y"),
    "mask, causal": ("Attention", [Q, K, V, SOME[None]], {"is_causal": 1}, "Y"),
    "past": ("Attention", [Q, K, V, normal(3, 7), *PAST], {}, "Y pk pv"),
    "past, no mask": ("Attention", [Q, K, V, None, *PAST], {"is_causal": 1}, "Y pk pv"),
    "present": ("Attention", [Q, K, V], {}, "Y pk pv"),
    "groups": ("Attention", [Q, normal(2, 2, 5, 8), normal(2, 2, 5, 6)], {}, "Y"),
    "one group": ("Attention", [Q, normal(2, 1, 5, 8), normal(2, 1, 5, 6)], {}, "Y"),
    "packed": (
        "Attention",
        [normal(2, 3, 32), normal(2, 5, 16), normal(2, 5, 12), SOME],
        {"q_num_heads": 4, "kv_num_heads": 2},
        "Y",
    ),
    **{
        f"products, mode {mode}": (
            "Attention",
            [Q, K, V, SOME if mode == 3 else normal(3, 5)],
            {"qk_matmul_output_mode": mode, "softcap": 1.5},
            "Y - - qk",
        )
        for mode in range(4)
    },
}
YOUNGER: dict[str, Corner] = {
    "filled": ("Attention", [Q, K, V, None, None, None, integers(3, 5)], {}, "Y"),
    "filled, causal": (
        "Attention", [Q, K, V, None, None, None, integers(3, 5)], {"is_causal": 1}, "Y"
    ),
    "scattered": ("TensorScatter", [normal(2, 3, 6, 4), normal(2, 3, 2, 4)], {}, "Y"),
    "scattered behind": (
        "TensorScatter", [normal(2, 3, 6, 4), normal(2, 3, 2, 4), integers(1, 3)], {}, "Y"
    ),
    "scattered around": (
        "TensorScatter",
        [normal(2, 6, 3, 4), normal(2, 2, 3, 4), integers(5, 3)],
        {"mode": "circular", "axis": 1},
        "Y",
    ),
}  # fmt: skip
ROTATED: dict[str, Corner] = {
    "rotated": ("RotaryEmbedding", [X, *CACHES, PLACES], {}, "Y"),
    "rotated in pairs": ("RotaryEmbedding", [X, *CACHES, PLACES], {"interleaved": 1}, "Y"),
    "rotated in part": (
        "RotaryEmbedding",
        [X, normal(10, 2), normal(10, 2), PLACES],
        {"rotary_embedding_dim": 4},
        "Y",
    ),
    "rotated, packed": (
        "RotaryEmbedding", [normal(2, 4, 24), *CACHES, PLACES], {"num_heads": 3}, "Y"
    ),
    "rotated, placed": (
        "RotaryEmbedding",
        [normal(2, 4, 24), normal(2, 4, 4), normal(2, 4, 4)],
        {"num_heads": 3},
        "Y",
    ),
}  # fmt: skip
UNKNOWN_TO_THE_RUNTIME: dict[str, Corner] = {
    "window": ("Attention", [Q, K, V], {"left_window_size": 1}, "Y"),
    "window, both sides": (
        "Attention", [Q, K, V], {"left_window_size": 1, "right_window_size": 0}, "Y"
    ),
    "window behind a past": (
        "Attention", [Q, K, V, None, *PAST], {"left_window_size": 2, "right_window_size": 1}, "Y"
    ),
}  # fmt: skip
CASES = [
    pytest.param(opset, corner, id=f"{opset}-{name}")
    for opset, corners in ((23, ATTENTION | ROTATED), (24, ATTENTION | YOUNGER), (25, ATTENTION))
    for name, corner in corners.items()
]


@pytest.mark.parametrize(("opset", "corner"), CASES)
def test_parts_compute_the_whole(opset: int, corner: Corner) -> None:
    model, feeds = one_node(*corner, opset)
    opened = session(model)
    expected = opened.run(None, feeds)
    canonical = canonicalize(model, batch="keep")
    for optimised in (True, False):
        actual = run(canonical, feeds, optimised=optimised)
        for output, value in zip(opened.get_outputs(), expected, strict=True):
            np.testing.assert_allclose(actual[output.name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", UNKNOWN_TO_THE_RUNTIME)
def test_windows_are_as_the_standard_says(name: str) -> None:
    model, feeds = one_node(*UNKNOWN_TO_THE_RUNTIME[name], 25)
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    actual = run(canonicalize(model, batch="keep"), feeds)["Y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_mask_may_leave_out_the_last_keys() -> None:
    """From opset 24 on; the runtime refuses it, so that the full mask is what it is held to."""
    short, feeds = one_node("Attention", [Q, K, V, SOME[:, :4]], {}, "Y", 24)
    full = np.where(np.arange(5) < 4, SOME, False)
    whole, given = one_node("Attention", [Q, K, V, full], {}, "Y", 24)
    (expected,) = session(whole).run(None, given)
    actual = run(canonicalize(short, batch="keep"), feeds)["Y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ATTENTION, *YOUNGER, *ROTATED])
def test_the_gradient_is_right(name: str) -> None:
    corner = (ATTENTION | YOUNGER | ROTATED)[name]
    model, feeds = one_node(*corner, 23 if name in ROTATED else 24)
    canonical = canonicalize(model, batch="keep")
    of = "qk" if name in ("products, mode 1", "products, mode 3") else "Y"
    reached = 0
    for wrt, value in feeds.items():
        if value.dtype == np.float32:
            try:
                grads = gr.differentiate(canonical, wrt=wrt, of=of)
            except NoGradientPathError:
                continue
            assert directional_error(grads, feeds, wrt, of=of, directions=1) < 1e-6
            reached += 1
    assert reached >= 2


def test_only_what_is_needed_is_written() -> None:
    model, _ = one_node("Attention", [Q, K, V], {}, "Y", 23)
    written = [node.op_type for node in canonicalize(model, batch="keep").graph.node]
    assert written == ["Mul", "Transpose", "MatMul", "Softmax", "MatMul"]
