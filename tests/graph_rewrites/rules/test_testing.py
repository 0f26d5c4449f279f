"""The checker itself: planted errors must be caught, right rules must pass."""

import numpy as np
import onnx
import onnx.helper
import pytest

from graph_rewrites.rules import DEFAULT_RULES
from graph_rewrites.rules.table import Rule
from graph_rewrites.testing import away_from, between, check_adjoint, check_vjp, distinct, normal

from .harness import Case, onnxruntime

W = np.random.default_rng(3).standard_normal((4, 2, 3, 3)).astype(np.float32)
CONV = Case("Conv", [("N", 2, 7, 6), W], {"strides": [1, 1], "pads": [1, 1, 1, 1]}).model()


def model(text: str, inputs: str = "float[N, 4] x") -> str:
    return f'<ir_version: 9, opset_import: ["" : 21]> g ({inputs}) => (y) {{ {text} }}'


# -- planted errors --------------------------------------------------------------------------------


def scaled_conv(op, node, cts):
    grad, *rest = DEFAULT_RULES.get("Conv").fn(op, node, cts)
    return [op.Mul(grad, 1.001), *rest]


def flipped_conv(op, node, cts):
    flipped = op.Slice(node.inputs[1], [-1, -1], [-10, -10], [2, 3], [-1, -1])
    return [op.ConvTranspose(cts[0], flipped, pads=[1, 1, 1, 1]), None]


def half_transposed_conv(op, node, cts):
    turned = op.Transpose(node.inputs[1], perm=[0, 1, 3, 2])
    return [op.ConvTranspose(cts[0], turned, pads=[1, 1, 1, 1]), None]


@pytest.mark.parametrize("wrong", [scaled_conv, flipped_conv, half_transposed_conv])
def test_wrong_convolutions_are_caught(wrong) -> None:
    check_adjoint(CONV, rule=DEFAULT_RULES.get("Conv"))
    with pytest.raises(AssertionError, match=r"Conv.*pads.*off by"):
        check_adjoint(CONV, rule=wrong)


def test_an_error_in_one_corner_is_caught() -> None:
    def shifted(op, node, cts):
        grad = op.ConvTranspose(cts[0], node.inputs[1], strides=[2, 2], output_padding=[1, 1])
        return [op.Slice(grad, [1, 1], [8, 8], [2, 3]), None]

    case = Case("Conv", [("N", 2, 8, 8), W], {"strides": [2, 2], "pads": [0, 0, 1, 1]})
    check_adjoint(case.model())
    with pytest.raises(AssertionError):
        check_adjoint(case.model(), rule=shifted)


WRONG = {
    "missing mask": (model("y = Relu(x)"), lambda op, node, cts: [cts[0]]),
    "missing factor": (
        model("y = Sigmoid(x)"),
        lambda op, node, cts: [op.Mul(cts[0], node.output)],
    ),
    "factor 1.001": (
        model("y = Sigmoid(x)"),
        lambda op, node, cts: [
            op.Mul(1.001, op.Mul(cts[0], op.Mul(node.output, op.Sub(1.0, node.output))))
        ],
    ),
    "wrong axis": (
        model("y = Softmax<axis = 1>(x)"),
        lambda op, node, cts: [
            op.Mul(
                node.output,
                op.Sub(cts[0], op.ReduceSum(op.Mul(cts[0], node.output), [0], keepdims=1)),
            )
        ],
    ),
    "wrong sign": (
        model("y = Sub(x, z)", "float[N, 4] x, float[N, 4] z"),
        lambda op, node, cts: [cts[0], cts[0]],
    ),
    "a term dropped": (
        model("y = Mul(x, x)"),
        lambda op, node, cts: [op.Mul(cts[0], node.inputs[1]), None],
    ),
    "not a number": (
        model("y = Relu(x)"),
        lambda op, node, cts: [op.Mul(cts[0], op.Log(op.Sub(0.0, op.Abs(node.inputs[0]))))],
    ),
    "mask of the next row": (
        model("y = Relu(x)"),
        lambda op, node, cts: [
            op.Mul(cts[0], op.Sign(op.Slice(node.output, [-1], [-9], [0], [-1])))
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules_are_caught(name: str) -> None:
    text, rule = WRONG[name]
    domain = away_from(0.0)
    wrt = (0,) if name == "a term dropped" else None
    check_vjp(text, domain=domain)
    with pytest.raises(AssertionError, match="off by"):
        check_vjp(text, rule=rule, domain=domain, wrt=wrt)


def test_overlapping_maxima_must_add_up() -> None:
    def overwriting(op, node, cts):
        (x,) = node.inputs
        _, indices = op.MaxPool(x, outputs=2, kernel_shape=[3, 3])
        zeros = op.ConstantOfShape(op.Reshape(op.Size(x), [1]))
        flat = op.ScatterElements(
            zeros, op.Reshape(indices, [-1]), op.Reshape(cts[0], [-1]), axis=0
        )
        return [op.Reshape(flat, op.Shape(x))]

    pool = Case("MaxPool", [("N", 2, 6, 6)], {"kernel_shape": [3, 3]}).model()
    check_adjoint(pool, step=0.25, domain=distinct)
    with pytest.raises(AssertionError, match="off by"):
        check_adjoint(pool, rule=overwriting, step=0.25, domain=distinct)


def test_divisors_of_the_border_matter() -> None:
    attrs = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool = Case("AveragePool", [("N", 2, 6, 6)], attrs).model()

    def uniform(op, node, cts):
        weight = np.full((2, 1, 3, 3), 1 / 9, np.float32)
        return [op.ConvTranspose(cts[0], weight, group=2, pads=[1, 1, 1, 1])]

    check_adjoint(pool, runtime=onnxruntime)
    with pytest.raises(AssertionError, match="off by"):
        check_adjoint(pool, rule=uniform, runtime=onnxruntime)


# -- broken contracts ------------------------------------------------------------------------------


def no_cotangent(op, node, cts):
    return [None]


def one_too_many(op, node, cts):
    return [cts[0], None]


def double_precision(op, node, cts):
    return [op.Cast(cts[0], to=onnx.TensorProto.DOUBLE)]


def cut_at_run_time(op, node, cts):
    few = op.Less(op.Cast(op.Shape(cts[0]), to=onnx.TensorProto.FLOAT), 3.0)
    return [op.Compress(cts[0], few, axis=1)]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (no_cotangent, "no cotangent for input 0"),
        (one_too_many, "returned 2 cotangents for 1 inputs"),
        (double_precision, "no valid ONNX"),
        (cut_at_run_time, r"float32 \[2, 1\], not float32 \[2, 4\]"),
    ],
)
def test_broken_contracts_are_caught(rule, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_vjp(model("y = Identity(x)"), rule=rule, sizes={"N": 2})


def test_a_cotangent_for_indices_is_caught() -> None:
    gather = Case("Gather", [("N", 3), np.array([0, 2])], {"axis": 1}).model()

    def eager(op, node, cts):
        return [DEFAULT_RULES.get("Gather").fn(op, node, cts)[0], cts[0]]

    with pytest.raises(AssertionError, match="input 1, which ONNX marks non-differentiable"):
        check_adjoint(gather, rule=eager)


def test_a_foreign_operator_is_caught() -> None:
    def foreign(op, node, cts):
        op.graph.append("QuickGelu", [cts[0]], ["foreign"], domain="com.microsoft")
        return ["foreign"]

    with pytest.raises(AssertionError, match=r"outside ai.onnx: \['QuickGelu'\]"):
        check_vjp(model("y = Identity(x)"), rule=foreign)


def test_an_output_without_cotangent_is_tried() -> None:
    split = Case("Split", [("N", 4)], {"axis": 1, "num_outputs": 2}, outputs=2).model()

    def both_needed(op, node, cts):
        assert all(cts), "an output without cotangent"
        return [op.Concat(*cts, axis=1)]

    with pytest.raises(AssertionError, match="an output without cotangent"):
        check_adjoint(split, rule=both_needed)


def test_zero_must_be_zero() -> None:
    check_vjp(model("y = Floor(x)"), rule=Rule("Floor", None), domain=between(0.2, 0.8))
    with pytest.raises(AssertionError, match="declared zero, but its output changes with 'x'"):
        check_vjp(model("y = Abs(x)"), rule=Rule("Abs", None))


def test_an_operator_without_rule_is_named() -> None:
    with pytest.raises(AssertionError, match="Unique has no rule"):
        check_vjp(model("y = Unique(x)", "float[3, 3] x"))


def test_evaluators_that_disagree_are_reported() -> None:
    def doubled(opened: onnx.ModelProto):
        run = onnxruntime(opened)
        return lambda feeds: [2 * value for value in run(feeds)]

    with pytest.raises(AssertionError, match="two evaluators disagree on 'y'"):
        check_vjp(model("y = Exp(x)"), runtime=doubled)


# -- what passes -----------------------------------------------------------------------------------


def test_the_error_is_returned_and_small() -> None:
    assert 0 <= check_vjp(model("y = Tanh(x)"), runtime=onnxruntime) < 1e-6
    assert 0 <= check_adjoint(CONV, runtime=onnxruntime) < 1e-6


def test_quantised_pools_carry_the_dequantised_cotangent() -> None:
    text = model("y = MaxPool<kernel_shape = [2, 2]>(x)", "uint8[N, 1, 4, 5] x")
    assert check_adjoint(text, wrt=(0,), step=0.25, domain=distinct, runtime=onnxruntime) < 1e-6


def test_domains_keep_their_promise() -> None:
    rng = np.random.default_rng(0)
    values = away_from(0.0, 6.0, gap=0.1, scale=4.0)(rng, (1000,))
    assert min(np.abs(values).min(), np.abs(values - 6).min()) >= 0.1 - 1e-9
    assert values.min() < 0 and values.max() > 6
    assert np.diff(np.sort(distinct(rng, (4, 50)).ravel())).tolist() == [1] * 199
    assert between(2, 3)(rng, (50,)).min() >= 2
    assert normal(rng, (3, 2)).shape == (3, 2)
