"""The promises that hold for every model: any rank, any batch, any size, any process."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import graph_rewrites as gr

from .runtime import run
from .samples import LIGHT, graph_of, light
from .test_quantized import small_cnn

METHODS = tuple(gr.METHODS)
CAMS = ("grad_cam", "guided_grad_cam")


def network(sizes: list[int | str], batch: int | str | None = "N", classes: int = 5):
    """Conv, ReLU, max-pool, Conv, ReLU, average, dense on any number of spatial axes."""
    rng = np.random.default_rng(7)
    rank = len(sizes)
    weights = {
        "w1": rng.normal(0, 0.5, (6, 3, *[3] * rank)),
        "w2": rng.normal(0, 0.3, (8, 6, *[3] * rank)),
        "wf": rng.normal(0, 0.8, (8, classes)),
    }
    pads = {"pads": [1] * 2 * rank}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p"], kernel_shape=[2] * rank, strides=[2] * rank),
        helper.make_node("Conv", ["p", "w2"], ["c2"], **pads),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "wf"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "any_rank",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, *sizes])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def upsampled(grid: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Linear in each of the last axes, half-pixel, edges repeated."""
    for axis, size in enumerate(sizes, grid.ndim - len(sizes)):
        small = grid.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
        low = np.minimum(at.astype(int), small - 2)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(grid.ndim)])
        grid = grid.take(low, axis) * (1 - part) + grid.take(low + 1, axis) * part
    return grid


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pictures_of_one_two_and_three_dimensions(rank: int, targets: int) -> None:
    sizes = tuple(range(8, 8 + rank))
    x = numbers(2, 3, *sizes)
    built = gr.explanation_model(network([*sizes]), METHODS, targets=targets)
    chosen = np.array([[1, -1, 2], [0, 3, 4]])[:, :targets]
    out = run(built, {"x": x, "target": chosen[:, 0] if targets == 1 else chosen})
    lead = (2,) if targets == 1 else (2, targets)
    for name, method in gr.METHODS.items():
        expected = (*lead, 3, *sizes) if method.signed else (*lead, *sizes)
        assert out[f"map/{name}"].shape == expected
        assert out[f"map/{name}"].any()
    grid = out["map/grad_cam/raw"]
    assert grid.shape == (*lead, *(size // 2 for size in sizes))
    np.testing.assert_allclose(out["map/grad_cam"], upsampled(grid, sizes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("targets", [1, 2])
def test_symbolic_height_and_width_run_at_any_size(targets: int) -> None:
    free = gr.explanation_model(network(["H", "W"]), METHODS, targets=targets)
    chosen = np.array([[0, 3], [2, -1], [-1, 1]])
    target = chosen[:, 0] if targets == 1 else chosen
    for sizes in ((16, 16), (21, 13)):
        feeds = {"x": numbers(3, 3, *sizes), "target": target}
        fixed = run(gr.explanation_model(network([*sizes]), METHODS, targets=targets), feeds)
        for name, value in run(free, feeds).items():
            np.testing.assert_allclose(value, fixed[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("before", "behind"),
    [("unk__1", "unk__2"), (None, "N"), ("N", None), (None, None), ("b", "N"), (4, 4)],
)
def test_several_targets_whatever_the_batch_is_called(
    before: int | str | None, behind: int | str | None
) -> None:
    """TensorFlow's converters give the batch of every tensor a symbol of its own."""
    model = network([12, 12], before)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [behind, 5])
    )
    x, target = numbers(2, 3, 12, 12), np.array([[0, 1], [2, -1]])
    out = run(gr.explanation_model(model, METHODS, targets=2), {"x": x, "target": target})
    expected = run(
        gr.explanation_model(network([12, 12]), METHODS, targets=2), {"x": x, "target": target}
    )
    for name, value in expected.items():
        np.testing.assert_array_equal(out[name], value)


def test_a_uint8_picture_with_channels_last() -> None:
    model = graph_of(
        """g (uint8[N, 12, 14, 3] picture) => (float[N, 5] p) {
          f = Cast<to=1>(picture)  s = Mul(f, step)  first = Transpose<perm=[0, 3, 1, 2]>(s)
          c = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(first, w)  r = Relu(c)
          last = Transpose<perm=[0, 2, 3, 1]>(r)  m = ReduceMean<keepdims=0>(last, axes)
          z = MatMul(m, v)  p = Softmax(z) }""",
        step=np.float32(0.02),
        w=numbers(8, 3, 3, 3),
        v=numbers(8, 5),
        axes=np.array([1, 2]),
    )
    x = np.random.default_rng(0).integers(0, 256, (2, 12, 14, 3)).astype(np.uint8)
    out = run(gr.explanation_model(model, METHODS), {"picture": x, "target": np.array([1, -1])})
    assert out["map/gradient"].shape == out["map/guided_grad_cam"].shape == (2, 12, 14, 3)
    assert out["map/saliency"].shape == out["map/grad_cam"].shape == (2, 12, 14)
    assert out["map/gradient"].dtype == np.float32
    grads = gr.differentiate(model, wrt=["picture", "s"])
    both = run(grads, {"picture": x, "cotangent": np.eye(5, dtype=np.float32)[:2]})
    np.testing.assert_allclose(both["grad/picture"], both["grad/s"] * 0.02, rtol=1e-6)
    assert gr.testing.directional_error(grads, {"picture": x}, "picture") < 1e-6


def test_one_name_may_stand_alone_and_none_is_an_error() -> None:
    one = gr.differentiate(small_cnn(), wrt="image")
    assert [o.name for o in one.graph.output] == ["scores", "grad/image"]
    with pytest.raises(ValueError, match="names no tensor"):
        gr.differentiate(small_cnn(), wrt=[])


@pytest.mark.parametrize("targets", [0, -1, 1.5])
def test_a_count_of_targets_below_one_is_refused(targets: int) -> None:
    with pytest.raises(ValueError, match="targets must be 1 or more"):
        gr.explanation_model(small_cnn(), "saliency", targets=targets)


def test_an_unknown_layer_is_an_error_for_every_method() -> None:
    with pytest.raises(gr.UnknownTensorError, match="nowhere"):
        gr.explanation_model(small_cnn(), "saliency", layer="nowhere")


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("first", ["gradient", "deconvnet"])
def test_the_rule_can_be_replaced_inside_an_explanation_model(first: str, targets: int) -> None:
    built = gr.explanation_model(small_cnn(), first, targets=targets)
    replaced = gr.replace_relu_rule(built, "guided", prefix=first)
    direct = gr.explanation_model(small_cnn(), "guided_backprop", targets=targets)
    chosen = np.array([[1, -1, 2], [0, 3, 4]])[:, :targets]
    feeds = {"image": numbers(2, 3, 32, 32), "target": chosen[:, 0] if targets == 1 else chosen}
    np.testing.assert_array_equal(
        run(replaced, feeds)[f"map/{first}"], run(direct, feeds)["map/guided_backprop"]
    )
    back = gr.replace_relu_rule(replaced, first, prefix=first)
    assert sorted(n.name for n in back.graph.node) == sorted(n.name for n in built.graph.node)


def test_a_warning_names_the_line_that_called() -> None:
    model = small_cnn()
    model.graph.node.append(helper.make_node("Neg", ["scores"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", 5]))
    calls = (
        lambda: gr.scores(model),
        lambda: gr.differentiate(model, wrt=["image"]),
        lambda: gr.explanation_model(model, "saliency"),
    )
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [w.filename for w in caught] == [__file__]


def test_a_users_rule_for_an_activation_follows_the_policy_and_is_covered() -> None:
    def selu_vjp(op, node, cts):
        return [op.Mul(cts[0], 1.0507)]

    model = graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = Selu(x) }")
    rules = gr.DEFAULT_RULES.override(Selu=selu_vjp)
    plain = gr.differentiate(model, wrt=["x"], rules=rules)
    (activation,) = gr.coverage(plain).activations
    assert (activation.kind, activation.rule) == ("smooth", "gradient")
    clamped = gr.differentiate(model, wrt=["x"], rules=rules, other_activations="positive")
    (activation,) = gr.coverage(clamped).activations
    assert activation.rule == "positive"
    with pytest.raises(gr.RuleError, match="strict"):
        gr.differentiate(model, wrt=["x"], rules=rules, other_activations="strict")


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
@pytest.mark.parametrize("targets", [1, 2])
def test_every_added_node_is_named_stamped_and_needed(name: str, targets: int) -> None:
    assert name in LIGHT
    model = light(name)
    network_nodes = {node.output[0] for node in gr.canonicalize(model).graph.node}
    built = gr.explanation_model(model, METHODS, targets=targets)
    read = {i for node in built.graph.node for i in node.input}
    read.update(output.name for output in built.graph.output)
    added = [node for node in built.graph.node if node.output[0] not in network_nodes]
    assert len(added) == len(built.graph.node) - len(network_nodes)
    assert all(read.intersection(node.output) for node in added)
    assert {i.name for i in built.graph.initializer} <= read
    assert len({node.name for node in added}) == len(added)
    for node in added:
        stamp = {entry.key: entry.value for entry in node.metadata_props}
        assert "graph_rewrites.prefix" in stamp
        if node.name.startswith("bwd/"):
            prefix, forward = stamp["graph_rewrites.prefix"], stamp["graph_rewrites.forward"]
            assert node.name.startswith(f"bwd/{prefix}/{forward}/")
            assert {"graph_rewrites.op", "graph_rewrites.rule"} <= stamp.keys()


_BUILD = """
import hashlib, sys, onnx, graph_rewrites as gr
assert "onnxruntime" not in sys.modules and gr.testing.check_vjp and gr.testing.check_adjoint
model = onnx.load_from_string(sys.stdin.buffer.read())
built = gr.explanation_model(model, tuple(gr.METHODS), layer=("r1", "r3"), targets=2)
print(hashlib.sha256(built.SerializeToString()).hexdigest())
"""


def test_the_same_call_gives_the_same_bytes_in_every_process() -> None:
    root = Path(gr.__file__).parent.parent

    def digest(seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        return subprocess.run(
            [sys.executable, "-c", _BUILD],
            input=small_cnn().SerializeToString(),
            env=environment,
            capture_output=True,
            check=True,
        ).stdout

    assert digest("1") == digest("2") == digest("3")


def test_scores_that_have_lost_the_batch() -> None:
    model = graph_of(
        """g (float[1, 3, 8, 8] x) => (float[5] z) {
          c = Conv(x, w)  r = Relu(c)  a = GlobalAveragePool(r)
          d = Conv(a, v)  z = Squeeze(d) }""",
        w=numbers(4, 3, 3, 3),
        v=numbers(5, 4, 1, 1),
    )
    x = numbers(1, 3, 8, 8)
    out = run(gr.explanation_model(model, METHODS), {"x": x, "target": np.array([3])})
    assert out["map/saliency"].shape == out["map/grad_cam"].shape == (1, 8, 8)
    np.testing.assert_array_equal(out["score/used"], out["z"][[3]])
    grads = gr.differentiate(model, wrt="x")
    one = run(grads, {"x": x, "cotangent": np.eye(5, dtype=np.float32)[3]})
    np.testing.assert_array_equal(out["map/gradient"], one["grad/x"])


def test_the_source_is_never_touched() -> None:
    model = network([8, 8])
    before = model.SerializeToString(deterministic=True)
    gr.replace_relu_rule(gr.differentiate(model, wrt=["x"]), "guided")
    gr.explanation_model(model, METHODS, targets=2)
    assert model.SerializeToString(deterministic=True) == before
