"""The attention of `com.microsoft` becomes standard operators that compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graph_rewrites as gr
from graph_rewrites.canonical import canonicalize
from graph_rewrites.errors import UnsupportedOperatorError
from graph_rewrites.sharp import directional_error
from tests.graph_rewrites.runtime import run, session

N, S, K, H, D = 2, 3, 5, 2, 4
WIDTH = H * D
PADDED = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)
Feeds = dict[str, np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def fused(
    op_type: str, inputs: Sequence[np.ndarray | None], outputs: int = 1, **attributes: Any
) -> tuple[onnx.ModelProto, Feeds]:
    feeds = {f"x{i}": value for i, value in enumerate(inputs) if value is not None}
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    results = ["y", "key", "value", "qk"][:outputs]
    node = helper.make_node(op_type, names, results, "fused", domain="com.microsoft", **attributes)
    values = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    ranks = [[None] * (4 if name != "y" else 3) for name in results]
    declared = [
        helper.make_tensor_value_info(o, TensorProto.FLOAT, r)
        for o, r in zip(results, ranks, strict=True)
    ]
    graph = helper.make_graph([node], "g", values, declared)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), feeds


def merged(*inputs: np.ndarray | None, **attributes: Any) -> tuple[onnx.ModelProto, Feeds]:
    given = [normal(N, S, 6), normal(6, 3 * WIDTH), *inputs]
    return fused("Attention", given, num_heads=H, **attributes)


def apart(*inputs: np.ndarray | None, **attributes: Any) -> tuple[onnx.ModelProto, Feeds]:
    given = [normal(N, S, WIDTH), normal(N, K, WIDTH), normal(N, K, WIDTH), *inputs]
    return fused("MultiHeadAttention", given, num_heads=H, **attributes)


BIAS = normal(3 * WIDTH)
CASES = {
    "merged, bias": merged(BIAS),
    "merged, scale": merged(BIAS, scale=0.7),
    "merged, causal": merged(BIAS, unidirectional=1),
    "merged, mask": merged(BIAS, PADDED[:, 1:4]),
    "merged, mask of each query": merged(
        BIAS, np.array([[[1, 0, 0], [1, 1, 0], [1, 1, 1]]] * N, np.int32), mask_filter_value=-1.5
    ),
    "merged, added": merged(BIAS, None, None, normal(1, H, S, S)),
    "merged, other width of the values": fused(
        "Attention",
        [normal(N, S, 6), normal(6, 28), normal(28)],
        num_heads=H,
        qkv_hidden_sizes=[8, 8, 12],
    ),
    "apart": apart(),
    "apart, bias": apart(BIAS),
    "apart, mask": apart(BIAS, PADDED),
    "apart, mask and filter": apart(None, PADDED, mask_filter_value=-2.0, scale=0.3),
    "apart, added": apart(None, None, normal(N, 1, S, K)),
    "apart, present": apart(BIAS, outputs=3),
    "apart, causal": fused(
        "MultiHeadAttention", [normal(N, S, WIDTH)] * 3, num_heads=H, unidirectional=1
    ),
    "heads of keys in front": fused(
        "MultiHeadAttention",
        [normal(N, S, WIDTH), normal(N, H, K, D), normal(N, H, K, D)],
        num_heads=H,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_attention_becomes_standard_operators(case: str) -> None:
    model, feeds = CASES[case]
    opened = session(model)
    expected = opened.run(None, feeds)
    canonical = canonicalize(model, batch="keep")
    assert {node.domain for node in canonical.graph.node} == {""}
    actual = run(canonical, feeds)
    for name, value in zip([o.name for o in opened.get_outputs()], expected, strict=True):
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["merged, mask", "apart, mask", "apart, causal"])
def test_its_gradient_is_right(case: str) -> None:
    model, feeds = CASES[case]
    wrt = next(name for name, value in feeds.items() if value.dtype == np.float32)
    grads = gr.differentiate(canonicalize(model, batch="keep"), wrt=wrt, of="y")
    assert directional_error(grads, feeds, wrt, of="y") < 1e-6


@pytest.mark.parametrize("values", [2, 3])
def test_joint_inputs(values: int) -> None:
    """The runtime's CPU kernel takes none of them: compared with the same inputs apart."""
    parts = [normal(N, K, H, i + 1)[..., :1].repeat(D, -1) + normal(N, K, H, D) for i in range(3)]
    q, k, v = (part.reshape(N, K, WIDTH) for part in parts)
    joint = np.stack(parts[3 - values :], axis=3)
    inputs = [joint] if values == 3 else [q, joint]
    model, feeds = fused("MultiHeadAttention", inputs, num_heads=H)
    usual, given = fused("MultiHeadAttention", [q, k, v], num_heads=H)
    (expected,) = session(usual).run(None, given)
    actual = run(canonicalize(model, batch="keep"), feeds)["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("op_type", "inputs", "what"),
    [
        ("Attention", [normal(N, S, 6), normal(6, 24), BIAS, None, normal(2, N, H, 2, D)], "cache"),
        ("Attention", [normal(N, S, 6), normal(6, 24), BIAS, np.ones(N, np.int32)], "counts"),
        ("MultiHeadAttention", [normal(N, S, WIDTH)] * 3 + [None] * 3 + [normal(N, H, 2, D)] * 2,
         "cache"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(
    op_type: str, inputs: list[np.ndarray | None], what: str
) -> None:
    model, _ = fused(op_type, inputs, num_heads=H)
    with pytest.raises(UnsupportedOperatorError, match=f"{op_type} .node 'fused'.*{what}"):
        canonicalize(model)


def test_the_bias_may_be_left_out() -> None:
    """The runtime's CPU kernel crashes without one."""
    without, with_zeros = (merged(bias) for bias in (None, np.zeros_like(BIAS)))
    actual, expected = (
        run(canonicalize(model, batch="keep"), feeds)["y"] for model, feeds in (without, with_zeros)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
