"""The contract of `lower`."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import LIGHT, light, with_random_weights
from tests.graph_rewrites.test_light_models import LARGE, picture
from tests.graph_rewrites.test_quantized import pictures, small_cnn

from .cases import CASES
from .test_patterns import ROUNDING, relative, shapes


def grads() -> onnx.ModelProto:
    return gr.differentiate(CASES["a block with a shortcut"].model(), "x", of="y")


def test_portable_changes_no_operator() -> None:
    model = grads()
    assert gr.lower(model, "portable") == model


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_the_model_given_is_not_changed(provider: str) -> None:
    model = grads()
    before = model.SerializeToString()
    gr.lower(model, provider, {"x": (1, 16, 8, 8), "cotangent": (1, 16, 4, 4)})
    assert model.SerializeToString() == before


def test_inputs_and_outputs_keep_their_names_and_take_the_shapes_given() -> None:
    model = grads()
    lowered = gr.lower(model, "cpu", {"x": (2, 16, 8, 8), "cotangent": (2, 16, 4, 4)})
    for kind in ("input", "output"):
        before, after = (getattr(m.graph, kind) for m in (model, lowered))
        assert [v.name for v in before] == [v.name for v in after]
        assert all(v.type.tensor_type.shape.dim[0].dim_value == 2 for v in after)


def test_no_weight_is_copied() -> None:
    model = gr.differentiate(CASES["depthwise 5, stride 3"].model(), "x", of="y")
    lowered = gr.lower(model, "cpu", {"x": (1, 16, 15, 15), "cotangent": (1, 16, 5, 5)})
    weights = [t for t in lowered.graph.initializer if list(t.dims) == [16, 1, 5, 5]]
    assert [t.name for t in weights] == ["w"]


def test_lowering_comes_last() -> None:
    lowered = gr.lower(grads(), "cpu")
    for again in (
        lambda: gr.lower(lowered, "cpu"),
        lambda: gr.differentiate(lowered, "x", of="y", prefix="other"),
        lambda: gr.replace_relu_rule(lowered, "guided"),
        lambda: gr.explanation_model(lowered, "saliency"),
    ):
        with pytest.raises(gr.ModelError, match="lowered for 'cpu', which comes last"):
            again()


GUARDED = {
    "Sqrt": "y = Sqrt(x)",
    "Pow": "e = Constant<value_float=1.5>() y = Pow(x, e)",
    "ReduceL2": "a = Constant<value_ints=[2,3]>() y = ReduceL2<keepdims=1>(x, a)",
    "LpPool": "y = LpPool<kernel_shape=[2,2], strides=[2,2]>(x)",
    "LpPool of 3": "y = LpPool<kernel_shape=[2,2], strides=[2,2], p=3>(x)",
}


@pytest.mark.parametrize("body", GUARDED.values(), ids=GUARDED)
def test_what_guards_a_division_by_zero_stays(body: str) -> None:
    forward = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[1,16,4,4] x) => (float[1,16,H,W] y) '
        f"{{ {body} }}"
    )
    x = np.zeros((1, 16, 4, 4), np.float32)
    x[:, :, 1] = 2.0  # beside whole windows of zeros
    model = gr.differentiate(forward, "x", of="y")
    feeds = {"x": x, "cotangent": np.ones_like(run(forward, {"x": x})["y"])}
    found = run(gr.lower(model, "cpu", {n: v.shape for n, v in feeds.items()}), feeds)
    for name, value in run(model, feeds).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_coverage_reads_a_lowered_model() -> None:
    model = grads()
    assert gr.coverage(gr.lower(model, "cpu")) == gr.coverage(model)


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="one of portable, cpu, cuda"):
        gr.lower(grads(), "tpu")
    with pytest.raises(gr.UnknownTensorError, match="'X'"):
        gr.lower(grads(), "cpu", {"X": (1, 16, 8, 8)})
    with pytest.raises(ValueError, match="cannot be"):
        gr.lower(grads(), "cpu", {"x": (1, 16, 9, 8)})


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("method", gr.METHODS)
def test_explanation_models(method: str, targets: int) -> None:
    built = gr.explanation_model(small_cnn(), method, targets=targets)
    x = pictures(2, seed=3)
    target = np.array([[1, -1, 3], [0, 2, 4]])[:, :targets]
    feeds = {"image": x, "target": target if targets > 1 else target[:, 0]}
    fixed = {name: value.shape for name, value in feeds.items()}
    expected = run(built, feeds)
    for name, value in run(gr.lower(built, "cpu", fixed), feeds).items():
        assert value.shape == expected[name].shape
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in LIGHT if n not in LARGE])
def test_real_architectures(name: str) -> None:
    model = gr.canonicalize(with_random_weights(light(name)))
    tensor, x = picture(model)
    model = gr.differentiate(model, tensor)
    seed = next(value for value in model.graph.input if value.name == "cotangent")
    shape = [dim.dim_value or 1 for dim in seed.type.tensor_type.shape.dim]
    feeds = {tensor: x, "cotangent": np.random.default_rng(0).normal(size=shape)}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    lowered = gr.lower(model, "cpu", {name: value.shape for name, value in feeds.items()})
    ((ours,), (portable,)) = (session(m).run([f"grad/{tensor}"], feeds) for m in (lowered, model))
    assert relative(ours, portable) < ROUNDING


def test_equal_sizes_are_one_constant() -> None:
    """Else the runtime would not see that passes without any ReLU compute the same."""
    model = CASES["global average pool"].model()
    for prefix in ("one", "two"):
        model = gr.differentiate(model, "x", of="y", prefix=prefix)
    fixed = {"x": (2, 16, 6, 5), "one/cotangent": (2, 16, 1, 1), "two/cotangent": (2, 16, 1, 1)}
    lowered = gr.lower(model, "portable", fixed)
    sizes = [n.input[1] for n in lowered.graph.node if n.op_type == "Expand"]
    assert len(sizes) == 2
    assert len(set(sizes)) == 1


def test_an_input_left_open_stays_open() -> None:
    case = CASES["ReLU"]
    model = gr.lower(gr.differentiate(case.model(), "x", of="y"), "cpu")
    for batch in (1, 4):
        assert run(model, case.feeds(batch))["grad/x"].shape == shapes(case, batch)["x"]
