"""The sharp check finds planted errors, and its float64 operators are the runtime's."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import graph_rewrites as gr
from graph_rewrites.sharp import DoubleModel, directional_error
from graph_rewrites.sharp_ops import EXACT

from .samples import graph_of

FORWARD = """
    c = Conv<strides=[2,2], pads=[1,1,1,1], group=2>(x, w, b)
    r = Relu(c)
    p, at = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(r)
    a = AveragePool<kernel_shape=[2,2]>(p)
    flat = Flatten(a)
    logits = Gemm<transB=1>(flat, dense)
    probabilities = Softmax(logits)
"""
BACKWARD = """
    dflat = MatMul(cotangent, dense)
    ashape = Shape(a)
    da = Reshape(dflat, ashape)
    quarter = Constant<value_float=0.25>()
    daq = Mul(da, quarter)
    dp = ConvTranspose<group=6>(daq, ones)
    one = Constant<value_ints=[-1]>()
    rsize = Size(r)
    rlen = Reshape(rsize, one)
    zeros = ConstantOfShape(rlen)
    atflat = Reshape(at, one)
    dpflat = Reshape(dp, one)
    drflat = ScatterElements<axis=0, reduction="add">(zeros, atflat, dpflat)
    rshape = Shape(r)
    dr = Reshape(drflat, rshape)
    zero = Constant<value_float=0.0>()
    on = Greater(r, zero)
    dc = Where(on, dr, zero)
    dx = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,0], group=2>(dc, w)
    g = Identity(dx)
"""
CT = {"c": (2, 6, 6, 6), "r": (2, 6, 6, 6), "a": (2, 6, 3, 3)}


def _model(forward: str = FORWARD, backward: str = BACKWARD) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]>\n'
        "net (float[N,4,12,11] x, float[N,5] cotangent)"
        " => (float[N,5] probabilities, float[N,4,12,11] g) {" + forward + backward + "}"
    )
    weights = {
        "w": rng.standard_normal((6, 2, 3, 3)),
        "b": rng.standard_normal(6),
        "dense": rng.standard_normal((5, 6 * 3 * 3)),
        "ones": np.ones((6, 1, 2, 2)),
    }
    for name, value in weights.items():
        tensor = onnx.numpy_helper.from_array(value.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    model.graph.output[1].name = "grad/x"
    model.graph.node[-1].output[0] = "grad/x"
    onnx.checker.check_model(model, full_check=True)
    return model


def _picture() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 4, 12, 11)).astype(np.float32)}


def test_a_right_gradient_passes():
    assert directional_error(_model(), _picture(), "x", of="logits") < 1e-7


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("value_float=0.25", "value_float=0.250001"),
        ("value_float=0.25", "value_float=-0.25"),
        ("Where(on, dr, zero)", "Where(on, dr, dr)"),
        ("Greater(r, zero)", "Less(r, zero)"),
        ("output_padding=[1,0]", "output_padding=[1,0], dilations=[1,1], kernel_shape=[3,3]"),
        ('reduction="add"', 'reduction="max"'),
        ("MatMul(cotangent, dense)", "Neg(cotangent)\n    dflat = MatMul(n, dense)"),
        ("Identity(dx)", "Mul(dx, zero)"),
        ("Identity(dx)", "Div(dx, zero)"),
    ],
)
def test_planted_errors_are_caught(right, wrong):
    backward = BACKWARD.replace(right, wrong).replace("dflat = Neg", "n = Neg")
    assert backward != BACKWARD
    error = directional_error(_model(backward=backward), _picture(), "x", of="logits")
    if "dilations" in wrong:  # spelt out, not wrong
        assert error < 1e-7
    else:
        assert not error <= 1e-6


def test_the_gradient_at_an_inner_tensor():
    model = _model()
    for name in ("grad/r", "grad/c"):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        model.graph.node.append(onnx.helper.make_node("Identity", ["dr"], [name]))
    assert directional_error(model, _picture(), "r", of="logits") < 1e-7
    assert directional_error(model, _picture(), "c", of="logits") > 1e-2


def test_another_prefix_has_its_own_seed():
    model = _model()
    model.graph.input[1].name, model.graph.output[1].name = "again/cotangent", "again/x"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = {"cotangent": "again/cotangent", "grad/x": "again/x"}.get(name, name)
    assert directional_error(model, _picture(), "x", of="logits", prefix="again") < 1e-7


@pytest.mark.parametrize("x", [0.5, -0.5])
def test_a_kink_on_one_side_is_no_error(x):
    """A step of 1 reaches over the kink at 0, and the other side of x tells the slope."""
    text = "net (float[N,1] x) => (float[N,1] y) { y = Relu(x) }"
    value = {"x": np.full((1, 1), x, np.float32)}
    grads = gr.differentiate(graph_of(text), "x", of="y")
    wrong = gr.differentiate(graph_of(text), "x", of="y", relu="deconvnet")
    if x > 0:
        assert directional_error(grads, value, "x", of="y", steps=(1.0,)) < 1e-12
    else:  # no gradient at all: infinity, which is no error to judge by
        assert directional_error(grads, value, "x", of="y", steps=(1.0,)) == np.inf
        assert directional_error(wrong, value, "x", of="y", steps=(1.0,), seed=1) > 0.1


def test_a_missing_input_is_named():
    with pytest.raises(KeyError, match="'x'"):
        DoubleModel(_model()).values(("logits",), {})


def _quantised(zero_point: int, mask: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        net (uint8[N,3,5,5] x, float[N,4,5,5] cotangent) => (float[N,4,5,5] y, float g)
        <float s = {{0.02}}, uint8 z = {{{zero_point}}}, int8 wz = {{0}}, float ws = {{0.01}},
         float half = {{0.5}}, uint8 top = {{255}}, float zero = {{0.0}}>
        {{
            xf = Cast<to=1>(x)
            xs = Mul(xf, half)
            wf = DequantizeLinear(w, ws, wz)
            c = Conv<pads=[1,1,1,1]>(xs, wf)
            q = QuantizeLinear(c, s, z)
            y = DequantizeLinear(q, s, z)
            above = Greater(q, z)
            below = Less(q, top)
            inside = And(above, below)
            {mask}
            dxs = ConvTranspose<pads=[1,1,1,1]>(dc, wf)
            dx = Mul(dxs, half)
            g = Identity(dx)
        }}"""
    )
    weight = np.random.default_rng(2).integers(-99, 99, (4, 3, 3, 3), np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.graph.node[-1].output[0] = "grad/x"
    model.graph.output[1].name = "grad/x"
    return model


def test_a_quantised_file_is_unrounded_and_clamped_only_where_it_rectifies():
    picture = {"x": np.random.default_rng(1).integers(0, 9, (1, 3, 5, 5), np.uint8)}
    masked, straight = "dc = Where(inside, cotangent, zero)", "dc = Identity(cotangent)"
    errors = {
        (zero_point, mask): directional_error(_quantised(zero_point, mask), picture, "x", of="y")
        for zero_point in (0, 128)
        for mask in (masked, straight)
    }
    assert errors[0, masked] < 1e-6
    assert errors[0, straight] > 1e-2
    assert errors[128, straight] < 1e-6
    assert errors[128, masked] > 1e-2


def test_float16_and_typed_attributes_are_widened():
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        net (float16[2] x) => (float16[2] y) {
            xf = Cast<to=1>(x)
            wf = Cast<to=1>(w)
            third = Constant<value_floats=[0.1, 0.2]>()
            two = Shape(x)
            fill = ConstantOfShape<value=float[1] {0.7}>(two)
            bare = ConstantOfShape(two)
            s = Sum(xf, wf, third, fill, bare)
            y = Cast<to=10>(s)
        }"""
    )
    weight = onnx.numpy_helper.from_array(np.float16([3, 0.1]), "w")
    model.graph.initializer.append(weight)
    x = np.array([1e-9, 2e-9])
    (y,) = DoubleModel(model).values(("y",), {"x": x})
    parts = np.float16([3, 0.1]).astype(float) + np.float32([0.1, 0.2]) + np.float32(0.7)
    np.testing.assert_allclose(y, parts + x, rtol=1e-15)


CASES = {
    "conv": ("Conv<strides=[2,3], pads=[1,0,2,1], dilations=[2,1], group=2>(x, w)", (4, 3, 3, 2)),
    "conv without padding": ("Conv(x, w)", (4, 6, 3, 2)),
    "conv same upper": ('Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', (4, 6, 4, 3)),
    "conv same lower": ('Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)', (4, 6, 4, 3)),
    "conv valid": ('Conv<auto_pad="VALID", group=6>(x, w)', (12, 1, 4, 3)),
    "transposed": (
        "ConvTranspose<strides=[2,3], pads=[1,0,2,1], output_padding=[1,2], group=2>(x, w)",
        (6, 2, 3, 3),
    ),
    "transposed dilated": ("ConvTranspose<dilations=[2,3], pads=[1,1,1,1]>(x, w)", (6, 2, 3, 2)),
    "transposed depthwise": ("ConvTranspose<group=6, strides=[2,2]>(x, w)", (6, 1, 2, 3)),
    "transposed to a size": (
        "ConvTranspose<output_shape=[18,16], strides=[2,2]>(x, w)",
        (6, 2, 3, 3),
    ),
    "transposed same": ('ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', (6, 2, 3, 4)),
    "max": ("MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)", None),
    "max ceil": ("MaxPool<kernel_shape=[3,3], strides=[2,3], ceil_mode=1>(x)", None),
    "max dilated": ("MaxPool<kernel_shape=[2,3], dilations=[2,2]>(x)", None),
    "max same": ('MaxPool<kernel_shape=[2,3], strides=[2,2], auto_pad="SAME_LOWER">(x)', None),
    "mean": ("AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)", None),
    "mean with padding": (
        "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
        None,
    ),
    "mean ceil": ("AveragePool<kernel_shape=[3,3], strides=[2,3], ceil_mode=1>(x)", None),
    "erf": ("Erf(x)", None),
    "gelu": ("Gelu(x)", None),
    "gelu by tanh": ('Gelu<approximate="tanh">(x)', None),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_are_the_runtimes(case):
    call, weight = CASES[case]
    outputs = "y, at" if call.startswith("MaxPool") else "y"
    types = "float y, int64 at" if call.startswith("MaxPool") else "float y"
    inputs = "float[2,6,9,8] x" + (f", float{list(weight)} w" if weight else "")
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> net ({inputs}) => ({types})'
        f" {{ {outputs} = {call} }}"
    )
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 6, 9, 8)).astype(np.float32)}
    if weight:
        feeds["w"] = rng.standard_normal(weight).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, feeds)
    ours = ReferenceEvaluator(model, new_ops=list(EXACT)).run(
        None, {name: value.astype(np.float64) for name, value in feeds.items()}
    )
    assert ours[0].dtype == np.float64
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-4, atol=1e-5)
    if len(ours) == 2:
        np.testing.assert_array_equal(ours[1], expected[1])


def test_max_pool_takes_the_first_of_equal_values_in_either_storage_order():
    x = np.zeros((1, 2, 3, 4))
    for order, expected in ((0, [[0, 2], [12, 14]]), (1, [[0, 6], [12, 18]])):
        node = onnx.helper.make_node(
            "MaxPool", ["x"], ["y", "at"], kernel_shape=[3, 2], strides=[1, 2], storage_order=order
        )
        _, at = ReferenceEvaluator(node, new_ops=list(EXACT)).run(None, {"x": x})
        assert at.reshape(2, 2).tolist() == expected


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_elements_is_the_reference(reduction):
    rng = np.random.default_rng(0)
    feeds = {
        "data": rng.standard_normal((4, 5)),
        "indices": np.array([[0, 2, -1, 1, 3], [1, 3, 0, 2, 0]]),
        "updates": rng.standard_normal((2, 5)),
    }
    node = onnx.helper.make_node("ScatterElements", list(feeds), ["y"], axis=0, reduction=reduction)
    (expected,) = ReferenceEvaluator(node).run(None, feeds)
    (ours,) = ReferenceEvaluator(node, new_ops=list(EXACT)).run(None, feeds)
    np.testing.assert_allclose(ours, expected, rtol=1e-14)


@pytest.mark.parametrize("attributes", [{"axis": 1}, {"axis": 0, "block_size": 2}])
def test_scales_run_along_their_axis(attributes):
    rng = np.random.default_rng(0)
    shape = (3,) if "block_size" not in attributes else (2, 3)
    x = rng.integers(-9, 9, (4, 3), np.int8)
    feeds = {
        "x": x,
        "scale": rng.uniform(1, 2, shape).astype(np.float32),
        "zero": rng.integers(-3, 3, shape, np.int8),
    }
    node = onnx.helper.make_node("DequantizeLinear", list(feeds), ["y"], **attributes)
    (expected,) = ReferenceEvaluator(node).run(None, feeds)
    (ours,) = ReferenceEvaluator(node, new_ops=list(EXACT)).run(None, feeds)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_resized_constant_is_itself(mode):
    """In float64: weights rounded to float32 sum up to 1 but for 1e-6."""
    model = onnx.parser.parse_model(
        f'''<ir_version: 10, opset_import: ["" : 19]> net (float[1,1,7,5] x) => (float[1,1,7,7] y)
        <float[4] scales = {{1.0, 1.0, 1.0285715, 1.44}}>
        {{ y = Resize<mode="{mode}">(x, , scales) }}'''
    )
    (y,) = DoubleModel(model).values(("y",), {"x": np.ones((1, 1, 7, 5))})
    np.testing.assert_allclose(y, 1.0, rtol=1e-14)


def _tents(count: int, end: str = "\ny = Identity(t{count})") -> onnx.ModelProto:
    """x under tent maps t(x) = 2 max(x, 0) - 4 max(x - 0.5, 0): kinks lie 2^-count apart."""
    steps = "".join(
        f"""
        a{i} = Relu(t{i})
        m{i} = Sub(t{i}, half)
        b{i} = Relu(m{i})
        u{i} = Mul(a{i}, two)
        v{i} = Mul(b{i}, four)
        t{i + 1} = Sub(u{i}, v{i})"""
        for i in range(count)
    )
    numbers = {"half": np.float32(0.5), "two": np.float32(2.0), "four": np.float32(4.0)}
    return graph_of(
        f"g (float[N, 3] t0) => (float[N, 3] y) {{ {steps}\n {end.format(count=count)} }}",
        **numbers,
    )


def test_kinks_closer_than_any_step_are_held():
    x = np.array([[0.3137, 0.4719, 0.2293]])
    grads = gr.differentiate(_tents(30), "t0", of="y")
    f = DoubleModel(grads).function("y", "t0", {})
    assert np.abs(f(x + 1e-7) - f(x - 1e-7)).max() / 2e-7 < 2.0**25, "the slope is 2^30"
    assert directional_error(grads, {"t0": x}, "t0", of="y") < 1e-6
    grads.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.00001), "more"))
    grads.graph.node[-1].op_type = "Mul"
    grads.graph.node[-1].input.append("more")
    assert directional_error(grads, {"t0": x}, "t0", of="y") > 5e-6


def test_clipped_indices_stay_integers_where_kinks_are_held():
    end = """
        largest = ArgMax<axis = 1>(t0)
        at = Clip(largest, first, last)
        y = GatherElements<axis = 1>(t{count}, at)"""
    model = _tents(30, end)
    for name, value in (("first", 0), ("last", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(value), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    x = np.array([[0.3137, 0.4719, 0.2293]])
    assert directional_error(gr.differentiate(model, "t0", of="y"), {"t0": x}, "t0", of="y") < 1e-6


def test_a_tensor_that_is_constant_but_for_rounding() -> None:
    """Steps as long as its deviation would be lost in it."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> net (float[N,1,7,5] x) => (float[N,R] y)'
        " <int64[1] rows = {-2}> { p = Softplus(x) r = ReduceLogSum<keepdims=1>(p, rows)"
        " one = Softmax<axis=2>(r) v = Sigmoid(one) y = Flatten<axis=1>(v) }"
    )
    x = np.random.default_rng(0).standard_normal((2, 1, 7, 5)).astype(np.float32)
    grads = gr.differentiate(model, ["v"], of="y")
    (v,) = DoubleModel(grads).values(("v",), {"x": x})
    assert 0 < np.std(v) < 1e-15
    assert directional_error(grads, {"x": x}, "v", of="y") < 1e-6
