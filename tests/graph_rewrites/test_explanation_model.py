"""The explanation model: its contract, its targets, its maps against plain numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graph_rewrites as gr

from .runtime import run
from .test_quantized import SIZE, pictures, small_cnn

CAMS = ("grad_cam", "guided_grad_cam")


def explain(
    model: onnx.ModelProto, x: np.ndarray, target: np.ndarray | list[int], **options: object
) -> dict[str, np.ndarray]:
    built = gr.explanation_model(model, **options)
    return run(built, {"image": x, "target": np.asarray(target, np.int64)})


def scores(x: np.ndarray) -> np.ndarray:
    return run(small_cnn(), {"image": x})["scores"]


@pytest.mark.parametrize("method", gr.METHODS)
def test_contract(method: str) -> None:
    model = gr.explanation_model(small_cnn(), method)
    outputs = {o.name: o for o in model.graph.output}
    assert [i.name for i in model.graph.input] == ["image", "target"]
    expected = {"scores", f"map/{method}", "target/used", "score/used"}
    assert set(outputs) == expected | ({f"map/{method}/raw"} if method in CAMS else set())
    assert not {n.domain for n in model.graph.node} - {""}
    x = pictures(3, seed=9)
    out = run(model, {"image": x, "target": np.array([-1, 2, 4])})
    np.testing.assert_array_equal(out["scores"], scores(x))
    used = [scores(x)[0].argmax(), 2, 4]
    np.testing.assert_array_equal(out["target/used"], used)
    np.testing.assert_array_equal(out["score/used"], scores(x)[range(3), used])
    signed = gr.METHODS[method].signed
    assert out[f"map/{method}"].shape == ((3, 3, SIZE, SIZE) if signed else (3, SIZE, SIZE))
    assert out[f"map/{method}"].any()


@pytest.mark.parametrize("method", gr.METHODS)
def test_several_targets_over_one_forward_equal_one_at_a_time(method: str) -> None:
    x = pictures(2, seed=4)
    targets = np.array([[0, -1, 3], [4, 1, -1]])
    together = explain(small_cnn(), x, targets, method=method, targets=3)
    assert together["target/used"].shape == together["score/used"].shape == (2, 3)
    for n in range(2):
        for t in range(3):
            alone = explain(small_cnn(), x[n : n + 1], targets[n, t : t + 1], method=method)
            for name in ("target/used", "score/used", f"map/{method}"):
                np.testing.assert_allclose(
                    together[name][n, t], alone[name][0], rtol=1e-4, atol=1e-6
                )


def test_several_targets_share_the_convolutions_of_the_forward_pass() -> None:
    def convolutions(targets: int) -> int:
        model = gr.explanation_model(small_cnn(), "gradient", targets=targets)
        return sum(n.op_type in ("Conv", "ConvTranspose") for n in model.graph.node)

    assert convolutions(5) == convolutions(1)


def test_several_methods_and_layers_share_one_forward() -> None:
    x = pictures(2, seed=6)
    names = tuple(gr.METHODS)
    both = explain(small_cnn(), x, [1, 2], method=names, layer=("r2", "r3"))
    for name in names:
        for layer in ("r2", "r3") if name in CAMS else ("",):
            alone = explain(small_cnn(), x, [1, 2], method=name, layer=layer or None)
            suffix = f"/{layer}" if layer else ""
            np.testing.assert_allclose(
                both[f"map/{name}{suffix}"], alone[f"map/{name}"], rtol=1e-4, atol=1e-7
            )
    model = gr.explanation_model(small_cnn(), names, layer=("r2", "r3"))
    forward = [n for n in model.graph.node if not n.metadata_props]
    assert sum(n.op_type == "Conv" for n in forward) == 3


@pytest.mark.parametrize("bad", [-2, 5, 1000])
@pytest.mark.parametrize("method", ["saliency", "grad_cam"])
def test_a_target_that_names_no_class_gives_nan_and_spares_the_others(
    bad: int, method: str
) -> None:
    out = explain(small_cnn(), pictures(2, seed=8), [bad, 1], method=method)
    assert np.isnan(out["score/used"][0])
    assert np.isnan(out[f"map/{method}"][0]).all()
    assert np.isfinite(out["score/used"][1])
    assert np.isfinite(out[f"map/{method}"][1]).all()


def test_the_maps_are_those_of_the_papers() -> None:
    """Saliency, Grad-CAM and guided Grad-CAM re-derived from the gradients by plain numpy."""
    x = pictures(2, seed=11)
    ct = np.zeros((2, 5), np.float32)
    ct[:, 3] = 1
    grads = run(gr.differentiate(small_cnn(), wrt=["image", "r3"]), {"image": x, "cotangent": ct})
    guided = run(
        gr.differentiate(small_cnn(), wrt=["image"], relu="guided"),
        {"image": x, "cotangent": ct},
    )["grad/image"]
    out = explain(small_cnn(), x, [3, 3], method=tuple(gr.METHODS), layer="r3")
    np.testing.assert_allclose(out["map/gradient"], grads["grad/image"], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        out["map/saliency"], np.abs(grads["grad/image"]).max(1), rtol=1e-5, atol=1e-8
    )
    features = run(_tapped("r3"), {"image": x})["r3"]
    weights = grads["grad/r3"].mean((2, 3), keepdims=True)
    cam = np.maximum((weights * features).sum(1), 0)
    np.testing.assert_allclose(out["map/grad_cam/raw"], cam, rtol=1e-4, atol=1e-7)
    wide = np.stack([_bilinear(grid, SIZE) for grid in cam])
    np.testing.assert_allclose(out["map/grad_cam"], wide, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        out["map/guided_grad_cam"], guided * wide[:, None], rtol=1e-4, atol=1e-6
    )


def _tapped(tensor: str) -> onnx.ModelProto:
    model = small_cnn()
    model.graph.output.append(
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", 16, SIZE // 2, SIZE // 2])
    )
    return model


def _bilinear(grid: np.ndarray, size: int) -> np.ndarray:
    at = np.clip((np.arange(size) + 0.5) * len(grid) / size - 0.5, 0, len(grid) - 1)
    low = np.minimum(at.astype(int), len(grid) - 2)
    part = at - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _with_head(nodes: list[onnx.NodeProto], shape: list[int | str], **constants: object):
    model = small_cnn()
    model.graph.node.extend(nodes)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, shape))
    return model


def test_one_logit_behind_a_sigmoid_has_two_sides() -> None:
    head = [
        helper.make_node("MatMul", ["scores", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["out"]),
    ]
    weight = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    model = _with_head(head, ["N", 1], w=weight)
    x = pictures(4, seed=13)
    yes, no, best = (explain(model, x, [t] * 4, method="gradient") for t in (1, 0, -1))
    np.testing.assert_array_equal(yes["map/gradient"], -no["map/gradient"])
    np.testing.assert_array_equal(yes["score/used"], -no["score/used"])
    positive = yes["score/used"] > 0
    np.testing.assert_array_equal(best["target/used"], positive.astype(int))
    assert (best["score/used"] >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 5), (5, 1, 1)])
def test_scores_of_rank_four_behind_a_softmax(shape: tuple[int, int, int]) -> None:
    head = [
        helper.make_node("Reshape", ["scores", "s"], ["wide"]),
        helper.make_node("Softmax", ["wide"], ["out"], axis=1 + shape.index(5)),
    ]
    model = _with_head(head, ["N", *shape], s=np.array([-1, *shape], np.int64))
    x = pictures(2, seed=14)
    out = explain(model, x, [-1, 3], method="saliency")
    plain = explain(small_cnn(), x, [-1, 3], method="saliency")
    np.testing.assert_array_equal(out["target/used"], plain["target/used"])
    np.testing.assert_allclose(out["map/saliency"], plain["map/saliency"], rtol=1e-5)


def test_weights_are_shared_and_added_nodes_are_small() -> None:
    model = small_cnn()
    canonical = gr.canonicalize(model)
    built = gr.explanation_model(model, "guided_grad_cam")
    added = [n for n in built.graph.node if n.metadata_props]
    names = sum(
        len(n.name)
        + sum(map(len, (*n.input, *n.output)))
        + sum(len(p.value) for p in n.metadata_props)
        for n in added
    )
    growth = built.ByteSize() - canonical.ByteSize()
    assert growth <= 400 * len(added) + names


def test_an_unknown_method_or_layer_names_the_nearest() -> None:
    with pytest.raises(gr.UnknownTensorError, match="did you mean 'grad_cam'"):
        gr.explanation_model(small_cnn(), "gradcam")
    with pytest.raises(gr.UnknownTensorError, match="r9"):
        gr.explanation_model(small_cnn(), "grad_cam", layer="r9")


def test_a_model_without_a_picture_is_refused() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]>'
        " g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
    )
    with pytest.raises(gr.ModelError, match="no image input"):
        gr.explanation_model(model, "saliency")


def test_several_targets_need_a_free_batch() -> None:
    fixed = gr.canonicalize(small_cnn(), batch="keep")
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(gr.ModelError, match="free batch"):
        gr.explanation_model(fixed, "saliency", targets=2)
