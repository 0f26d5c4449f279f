"""Targets beyond one class: a mask over a segmentation, a box of a detector, a similarity."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graph_rewrites as gr

from .place_models import CLASSES, SIZE, detector, embedder, segmentation
from .runtime import run

RNG = np.random.default_rng(3)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def explain(model: onnx.ModelProto, feeds: dict, **options: object) -> dict[str, np.ndarray]:
    built = gr.explanation_model(model, **options)
    ints = ("target", "box")
    fed = {k: np.asarray(v, np.int64 if k in ints else np.float32) for k, v in feeds.items()}
    return run(built, fed)


def gradient(model: onnx.ModelProto, of: str, x: np.ndarray, seed: np.ndarray) -> np.ndarray:
    grads = gr.differentiate(model, wrt="image", of=of)
    return run(grads, {"image": x, "cotangent": seed.astype(np.float32)})["grad/image"]


def test_the_axes_of_scores_at_places() -> None:
    found = gr.scores(segmentation(), "out")
    assert (found.tensor, found.class_axis, found.classes) == ("out", 1, CLASSES)
    assert found.position_axes == (2, 3)
    last = gr.scores(segmentation("out = Transpose<perm=[0, 2, 3, 1]>(wide)", "N, 12, 12, 5"))
    assert (last.class_axis, last.position_axes) == (3, (1, 2))
    boxes = gr.scores(detector(), "scores")
    assert (boxes.tensor, boxes.class_axis, boxes.classes) == ("logits", 2, CLASSES)
    assert (boxes.position_axes, boxes.peeled) == ((1,), ("Sigmoid",))
    turned = gr.scores(detector("classes first"), "scores")
    assert (turned.class_axis, turned.position_axes) == (1, (2,))
    inner = gr.scores(segmentation(), "r1")
    assert (inner.tensor, inner.class_axis, inner.classes) == ("r1", 1, 6)


@pytest.mark.parametrize("link", ["Softmax<axis=1>", "LogSoftmax<axis=1>", "Sigmoid"])
def test_probabilities_of_pixels_are_peeled(link: str) -> None:
    found = gr.scores(segmentation(f"out = {link}(wide)"), "out")
    assert (found.tensor, found.class_axis, found.position_axes) == ("wide", 1, (2, 3))


def test_a_softmax_over_the_places_is_no_link() -> None:
    found = gr.scores(segmentation("out = Softmax<axis=3>(wide)"), "out")
    assert (found.tensor, found.class_axis) == ("out", 1)


def test_the_default_layer_is_what_the_class_maps_are_made_of() -> None:
    assert [m.tensor for m in gr.feature_maps(segmentation()) if m.default] == ["backbone"]
    # A box of the fine level owes nothing to the coarse one: the last map that both depend on.
    assert [m.tensor for m in gr.feature_maps(detector(), "scores") if m.default] == ["trunk"]
    assert [m.tensor for m in gr.feature_maps(embedder(), objective="similarity") if m.default] == [
        "r1"
    ]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_mask_sums_its_class(layout: str) -> None:
    last = layout == "NHWC"
    model = (
        segmentation("out = Transpose<perm=[0, 2, 3, 1]>(wide)", "N, 12, 12, 5")
        if last
        else segmentation()
    )
    x = pictures(2)
    mask = RNG.random((2, SIZE, SIZE)).astype(np.float32) * (RNG.random((2, SIZE, SIZE)) > 0.6)
    got = explain(
        model,
        {"image": x, "target": [-1, 3], "mask": mask},
        method=("gradient", "grad_cam"),
        objective="mask",
    )
    out = run(model, {"image": x})["out"]
    maps = np.moveaxis(out, -1, 1) if last else out
    sums = (maps * mask[:, None]).sum((2, 3))
    used = [sums[0].argmax(), 3]
    np.testing.assert_array_equal(got["target/used"], used)
    np.testing.assert_allclose(got["score/used"], sums[range(2), used], rtol=1e-4, atol=1e-5)
    seed = np.zeros_like(maps)
    seed[range(2), used] = mask
    seed = np.moveaxis(seed, 1, -1) if last else seed
    np.testing.assert_allclose(
        got["map/gradient"], gradient(model, "out", x, seed), rtol=1e-4, atol=1e-5
    )
    assert got["map/grad_cam/raw"].shape == (2, SIZE // 2, SIZE // 2)


def test_a_mask_is_averaged_onto_a_coarser_grid() -> None:
    x = pictures(1)
    mask = np.zeros((1, SIZE, SIZE), np.float32)
    mask[:, :, 6:] = 1
    got = explain(
        segmentation(), {"image": x, "target": [2], "mask": mask}, of="small", objective="mask"
    )
    grid = np.zeros((1, 6, 6), np.float32)
    grid[:, :, 3:] = 1
    tapped = segmentation("small_out = Identity(small) out = Identity(wide)")
    tapped.graph.output.append(
        onnx.helper.make_tensor_value_info("small_out", onnx.TensorProto.FLOAT, ["N", 5, 6, 6])
    )
    small = run(tapped, {"image": x})["small_out"]
    # The triangle that averages two pixels reaches one to each side of the edge.
    inner = (small[:, 2] * grid)[:, :, [0, 1, 4, 5]].sum()
    edge = small[0, 2, :, 2].sum() / 8 + small[0, 2, :, 3].sum() * 7 / 8
    np.testing.assert_allclose(got["score/used"], [inner + edge], rtol=1e-5)


@pytest.mark.parametrize("order", ["boxes first", "classes first"])
@pytest.mark.parametrize(("box", "target"), [(7, 2), (-1, 2), (40, -1), (-1, -1)])
def test_a_box_of_a_detector(order: str, box: int, target: int) -> None:
    model, x = detector(order), pictures(2, seed=5)
    got = explain(
        model,
        {"image": x, "target": [target] * 2, "box": [box] * 2},
        method="gradient",
        of="scores",
        objective="box",
    )
    grads = gr.differentiate(model, wrt="image", of="logits")
    out = run(model, {"image": x})["scores"]
    logits = np.log(out / (1 - out))
    table = logits.swapaxes(1, 2) if order != "boxes first" else logits  # (N, A, C)
    allowed = np.full_like(table, -np.inf)
    chosen = np.s_[:, slice(None) if box < 0 else [box], slice(None) if target < 0 else [target]]
    allowed[chosen] = table[chosen]
    for n in range(2):
        a, c = np.unravel_index(allowed[n].argmax(), allowed[n].shape)
        assert (got["box/used"][n], got["target/used"][n]) == (a, c)
        np.testing.assert_allclose(got["score/used"][n], table[n, a, c], atol=1e-4)
        seed = np.zeros_like(table[:1])
        seed[0, a, c] = 1
        seed = seed.swapaxes(1, 2) if order != "boxes first" else seed
        expected = run(grads, {"image": x[n : n + 1], "cotangent": seed})["grad/image"]
        np.testing.assert_allclose(got["map/gradient"][n : n + 1], expected, atol=1e-6)


@pytest.mark.parametrize("of", ["vector", "flat", "pooled"])
def test_similarity_is_a_cosine(of: str) -> None:
    model, x, other = embedder(), pictures(2, seed=1), pictures(2, seed=2)
    options = {"method": "gradient", "of": of, "objective": "similarity"}
    dummy = np.ones((2, 6), np.float32)
    reference = explain(model, {"image": other, "reference": dummy}, **options)[
        "similarity/embedding"
    ]
    got = explain(model, {"image": x, "reference": reference}, **options)
    u, r = (run(model, {"image": images})["vector"] for images in (x, other))  # of length 1
    np.testing.assert_allclose(got["score/used"], (u * r).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(got["target/used"], [0, 0])
    # Through the file's own normalisation the cosine is the dot product with a unit vector.
    expected = gradient(model, "vector", x, r)
    np.testing.assert_allclose(got["map/gradient"], expected, rtol=1e-3, atol=1e-6)


def feeds(objective: str, images: int, lead: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    fed = {"image": pictures(images, seed=6), "target": rng.integers(-1, CLASSES, lead)}
    if objective == "mask":
        fed["mask"] = (rng.random((*lead, SIZE, SIZE)) > 0.5).astype(np.float32)
    if objective == "box":
        fed["box"] = rng.integers(-1, 45, lead)
    if objective == "similarity":
        del fed["target"]
        fed["reference"] = rng.standard_normal((*lead, 6)).astype(np.float32)
    return fed


NETWORKS = {"mask": segmentation, "box": detector, "similarity": embedder}


@pytest.mark.parametrize("objective", NETWORKS)
def test_several_targets_over_one_forward_equal_one_at_a_time(objective: str) -> None:
    model = NETWORKS[objective]()
    options = {"method": ("gradient", "grad_cam"), "objective": objective}
    fed = feeds(objective, 2, (2, 3))
    together = explain(model, fed, targets=3, **options)
    for n in range(2):
        for t in range(3):
            one = {k: v[n : n + 1] if k == "image" else v[n : n + 1, t] for k, v in fed.items()}
            alone = explain(model, one, **options)
            for name in ("target/used", "score/used", "map/gradient", "map/grad_cam/raw"):
                np.testing.assert_allclose(
                    together[name][n, t], alone[name][0], rtol=1e-3, atol=1e-6, err_msg=name
                )


@pytest.mark.parametrize(
    ("objective", "spoilt"),
    [
        ("mask", {"target": [CLASSES, 1]}),
        ("mask", {"mask": np.stack([np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))])}),
        ("box", {"box": [45, 2]}),
        ("box", {"box": [-2, 2]}),
        ("box", {"target": [-2, 2]}),
        ("similarity", {"reference": np.stack([np.zeros(6), np.ones(6)])}),
    ],
)
def test_what_makes_no_sense_gives_nan_and_spares_the_others(objective: str, spoilt: dict) -> None:
    fed = feeds(objective, 2, (2,)) | spoilt
    out = explain(NETWORKS[objective](), fed, method="gradient", objective=objective)
    assert np.isnan(out["score/used"]).tolist() == [True, False]
    assert np.isnan(out["map/gradient"]).all((1, 2, 3)).tolist() == [True, False]


def test_one_logit_a_pixel_has_two_sides() -> None:
    model = segmentation("out = Sigmoid(wide)", "N, 1, 12, 12", classes=1)
    assert gr.scores(model, "out").classes == 2
    mask = np.ones((1, SIZE, SIZE), np.float32)
    options = {"method": "gradient", "objective": "mask"}
    no, yes = (
        explain(model, {"image": pictures(1), "target": [t], "mask": mask}, **options)
        for t in (0, 1)
    )
    assert yes["map/gradient"].any()
    np.testing.assert_array_equal(yes["map/gradient"], -no["map/gradient"])
    np.testing.assert_array_equal(yes["score/used"], -no["score/used"])


def test_an_inner_tensor_by_name() -> None:
    x = pictures(1)
    got = explain(
        segmentation(),
        {"image": x, "target": [4], "mask": np.ones((1, SIZE, SIZE))},
        method="gradient",
        of="r1",
        objective="mask",
    )
    seed = np.zeros((1, 6, SIZE, SIZE))
    seed[:, 4] = 1
    np.testing.assert_allclose(
        got["map/gradient"], gradient(segmentation(), "r1", x, seed), rtol=1e-4, atol=1e-6
    )


def test_the_contract_of_the_inputs() -> None:
    def inputs(objective: str, **options: object) -> dict[str, list[object]]:
        built = gr.explanation_model(NETWORKS[objective](), objective=objective, **options)
        return {
            i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
            for i in built.graph.input
        }

    assert inputs("mask", targets=2) == {
        "image": ["N", 3, SIZE, SIZE], "target": ["N", 2], "mask": ["N", 2, SIZE, SIZE],
    }  # fmt: skip
    assert inputs("box")["box"] == ["N"]
    assert inputs("similarity") == {"image": ["N", 3, SIZE, SIZE], "reference": ["N", 6]}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (segmentation(), {"objective": "class", "of": "out"}, "over a mask or in a box"),
        (embedder(), {"objective": "mask"}, "no output holds scores at many places"),
        (embedder(), {"objective": "box", "of": "vector"}, "has no places that a box"),
        (detector(), {"objective": "mask", "of": "scores"}, "no height and width"),
        (segmentation(), {"objective": "similarity", "of": "flat"}, "no layer or tensor 'flat'"),
        (segmentation(), {"objective": "mask", "of": "oud"}, "did you mean 'out'"),
        (segmentation(), {"objective": "mask", "of": "image"}, "is no value that the network"),
    ],
)
def test_refusals(model: onnx.ModelProto, options: dict, message: str) -> None:
    with pytest.raises(gr.GraphRewriteError, match=message) as caught:
        gr.explanation_model(model, "gradient", **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_objective() -> None:
    with pytest.raises(ValueError, match="one of class, mask, box, similarity"):
        gr.explanation_model(segmentation(), objective="pixel")


def test_several_outputs_with_places_must_be_told_apart() -> None:
    model = segmentation("out = Identity(wide) other = Relu(wide)")
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["N", 5, SIZE, SIZE])
    )
    with pytest.raises(gr.ModelError, match=r"several outputs .*'out' .*'other' .*`of`"):
        gr.explanation_model(model, objective="mask")


def test_a_tensor_that_mixes_the_images_is_refused() -> None:
    model = segmentation("rows = Reshape(wide, lines) out = Identity(wide)")
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([-1, SIZE * SIZE]), "lines")
    )
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("side", onnx.TensorProto.FLOAT, ["M", SIZE * SIZE])
    )
    model.graph.node.append(onnx.helper.make_node("Relu", ["rows"], ["side"]))
    with pytest.raises(gr.ModelError, match="does not keep the images apart"):
        gr.explanation_model(gr.canonicalize(model, batch="keep"), "gradient", of="rows")


@pytest.mark.parametrize(("dims", "axis"), [((36, 24), 2), ((24, 36), 1), ((-1, 24), 2)])
def test_boxes_outnumber_classes_where_no_layer_tells(dims: tuple[int, int], axis: int) -> None:
    model = segmentation("out = Reshape(r1, lines)", f"N, {dims[0] % 37}, {dims[1]}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, *dims]), "lines"))
    assert gr.scores(model, "out").class_axis == axis


def test_axes_that_do_not_tell_the_classes() -> None:
    model = segmentation("out = Reshape(r1, lines)", "N, 8, 9, 12")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 8, 9, 12]), "lines"))
    with pytest.raises(gr.ModelError, match="cannot tell which axis of tensor 'out'"):
        gr.scores(model, "out")
