"""Masks, boxes and similarities asked of small networks, from the picture to the saved map."""

import json

import numpy as np
import onnx
import pytest
from PIL import Image

import analyzer
from analyzer import Box, Explanation, ExplanationWarning, Mask, Preprocess, Similarity, UsageError
from analyzer.geometry import Geometry
from analyzer.image_input import model_inputs
from analyzer.masks import place_mask
from tests.graph_rewrites.place_models import CLASSES, detector, embedder, segmentation
from tests.graph_rewrites.runtime import run

UNIT = Preprocess(scale=1 / 64, mean=(2.0,))
RNG = np.random.default_rng(4)
PICTURES = [RNG.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(2)]


@pytest.fixture(scope="module")
def seg() -> analyzer.Analyzer:
    return analyzer.load(segmentation(), preprocess=UNIT, labels=tuple("abcde"))


@pytest.fixture(scope="module")
def det() -> analyzer.Analyzer:
    return analyzer.load(detector(), preprocess=UNIT)


@pytest.fixture(scope="module")
def emb() -> analyzer.Analyzer:
    return analyzer.load(embedder(), preprocess=UNIT)


def batch(loaded: analyzer.Analyzer, *pictures: np.ndarray) -> np.ndarray:
    from analyzer.intake import take_in

    return take_in(list(pictures), loaded.preprocess, loaded.image).values


def corner() -> np.ndarray:
    mask = np.zeros((24, 32), bool)
    mask[:12, 4:16] = True  # the top left quarter of what the model sees
    return mask


def test_a_mask_is_drawn_on_the_picture(seg):
    e = seg.explain(PICTURES[0], target=Mask("c", corner()))
    assert e.target.tolist() == [2]
    assert e.labels == (("c in mask",),)
    placed = place_mask(corner().astype(np.float32), e.geometry[0], "mask")
    assert placed[:5, 1:5].min() == 1
    assert placed[7:].max() == placed[:, 7:].max() == 0
    out = run(segmentation(), {"image": batch(seg, PICTURES[0])})["out"]
    np.testing.assert_allclose(e.scores, [(out[0, 2] * placed).sum()], rtol=1e-4)


def test_masks_follow_the_picture_into_the_input():
    weights = np.zeros((24, 32), np.float32)
    weights[6:12, 10:16] = 1
    placed = place_mask(weights, Geometry((24, 32), (12, 12), (0.5, 0.5), (0.0, -2.0)), "m")
    expected = np.zeros((12, 12))
    expected[3:6, 3:6] = 1
    np.testing.assert_array_equal(placed > 0.5, expected > 0)
    same = place_mask(weights, Geometry.identity((24, 32)), "m")
    np.testing.assert_array_equal(same, weights)


def test_a_plain_class_of_a_segmentation_is_that_of_the_whole_picture(seg):
    e = seg.explain(PICTURES[0], target=1)
    whole = seg.explain(PICTURES[0], target=Mask(1))
    np.testing.assert_array_equal(e.values, whole.values)
    out = run(segmentation(), {"image": batch(seg, PICTURES[0])})["out"]
    np.testing.assert_allclose(e.scores, out[:, 1].sum((1, 2)), rtol=1e-4)
    assert (e.labels, e.layer) == ((("b",),), "backbone")
    best = seg.explain(PICTURES[0])
    assert best.target.tolist() == [out.sum((2, 3)).argmax()]


def test_masks_of_a_file_an_array_of_integers_and_of_weights_agree(seg, tmp_path):
    path = tmp_path / "part.png"
    Image.fromarray(corner().astype(np.uint8) * 255).save(path)
    given = [path, str(path), corner(), corner().astype(np.uint8), corner().astype(np.float64)]
    e = seg.explain(PICTURES[0], target=[Mask(2, mask) for mask in given])
    np.testing.assert_allclose(e.scores[0], e.scores[0, :1].repeat(5), rtol=1e-5)
    assert e.labels[0][0] == "c in part.png"
    halved = seg.explain(PICTURES[0], target=Mask(2, corner() * np.float32(0.5)))
    np.testing.assert_allclose(halved.scores * 2, e.scores[0, :1], rtol=1e-5)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((24, 24), bool), r"24 × 24 pixels does not fit image of 24 × 32"),
        (np.zeros((24, 32), bool), "the mask is empty"),
        (np.full((24, 32), np.nan), "empty or not finite"),
        (np.eye(24, 32, 29, dtype=bool), "outside the part of the picture that the model sees"),
    ],
)
def test_masks_that_do_not_fit(seg, mask, message):
    with pytest.raises(UsageError, match=message):
        seg.explain(PICTURES[0], target=Mask(1, mask))


def test_boxes(det):
    e = det.explain(PICTURES, target=[[Box(7, 2), Box(None, 2)], [Box(44), Box()]], output="scores")
    out = run(detector(), {"image": batch(det, *PICTURES)})["scores"]
    logits = np.log(out / (1 - out))
    assert e.axes == "NTHW"
    best = int(logits[0, :, 2].argmax())
    assert e.labels[0] == ("2 in box 7", f"2 in box {best}")
    box, target = np.unravel_index(logits[1].argmax(), logits[1].shape)
    assert e.labels[1][1] == f"{target} in box {box}"
    expected = [[logits[0, 7, 2], logits[0, best, 2]], [logits[1, 44].max(), logits[1].max()]]
    np.testing.assert_allclose(e.scores, expected, atol=1e-3)
    assert e.provenance["images"][0]["targets"][0] == {"class": 2, "box": 7}
    assert e.provenance["model"]["scores"]["objective"] == "box"
    assert "in one box" in e.provenance["conventions"]["explained"]


def test_a_plain_class_of_a_detector_is_that_of_its_best_box(det):
    e = det.explain(PICTURES[0], target=3)
    np.testing.assert_array_equal(
        e.values, det.explain(PICTURES[0], target=Box(None, 3), output="scores").values
    )


@pytest.mark.parametrize("index", [45, -2, 1.5, True])
def test_boxes_that_do_not_exist(det, index):
    with pytest.raises(UsageError, match="box"):
        det.explain(PICTURES[0], target=Box(index, 0))


def test_what_a_detector_kept_stays_with_its_picture(det):
    one = det.explain(PICTURES[0], target=Box(3, 1))
    assert one.outputs["kept"].shape[1:] == (3,)
    np.testing.assert_array_equal(one[0].outputs["kept"], one.outputs["kept"])
    both = det.explain(PICTURES, target=Box(3, 1))
    assert set(both.outputs) == {"scores"}


def test_similarity(emb):
    with pytest.warns(ExplanationWarning, match="zero everywhere"):  # nothing is nearer to itself
        e = emb.explain(PICTURES[0], target=[Similarity(PICTURES[1]), Similarity(PICTURES[0])])
    u = run(embedder(), {"image": batch(emb, *PICTURES)})["vector"]
    np.testing.assert_allclose(e.scores, [[u[0] @ u[1], 1]], rtol=1e-5)
    assert e.labels == (("similarity to image", "similarity to image"),)
    assert e.target.tolist() == [[0, 0]]
    assert e.provenance["images"][0]["targets"][1]["sha256"] == e.pictures[0].sha256


def test_one_reference_for_all_pictures(emb):
    with pytest.warns(ExplanationWarning, match="zero everywhere"):
        first = emb.explain(PICTURES, target=Similarity(PICTURES[1]), method="gradient")
    assert first.scores[1] == pytest.approx(1)
    # The cosine to itself is greatest there: its gradient vanishes.
    assert np.abs(first.values[1]).max() < 1e-5 < np.abs(first.values[0]).max()


@pytest.mark.parametrize("free", [True, False])
def test_several_targets_of_one_picture_equal_one_at_a_time(free):
    """With a fixed batch there is one run for each."""
    model = detector()
    if not free:
        for value in (*model.graph.input, model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        mixed = onnx.helper.make_node("ReduceMax", ["c1"], ["top"], keepdims=0)
        model.graph.node.extend([mixed, onnx.helper.make_node("Identity", ["top"], ["peak"])])
        model.graph.output.append(
            onnx.helper.make_tensor_value_info("peak", onnx.TensorProto.FLOAT, [])
        )
    loaded = analyzer.load(model, preprocess=UNIT)
    boxes = [Box(3, 1), Box(40, 0), Box(3, 2)]
    e = loaded.explain(PICTURES[0], target=boxes, output="scores")
    assert e.axes == "NTHW"
    assert [i.shape[0] for i in model_inputs(loaded.model)] == ["N" if free else 1]
    for t, box in enumerate(boxes):
        one = loaded.explain(PICTURES[0], target=box, output="scores")
        np.testing.assert_allclose(e.values[:, t], one.values, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(e.scores[:, t], one.scores, rtol=1e-5)
        assert e.labels[0][t] == one.labels[0][0]


def test_kinds_do_not_mix(seg):
    with pytest.raises(UsageError, match="mix Box and Mask"):
        seg.explain(PICTURES[0], target=[Mask(1), Box(1)])
    with pytest.raises(UsageError, match="mix Mask and int"):
        seg.explain(PICTURES[0], target=[Mask(1), 1])


def test_an_inner_tensor_and_its_own_default_layer(seg):
    e = seg.explain(PICTURES[0], target=7, output="backbone")
    assert (e.layer, e.labels) == ("r1", (("7",),))
    with pytest.raises(analyzer.ModelRejectedError, match="no feature map"):
        seg.explain(PICTURES[0], output="r1")
    with pytest.raises(UsageError, match="did you mean"):
        seg.explain(PICTURES[0], output="r11")
    with pytest.raises(UsageError, match="0 to 5"):
        seg.explain(PICTURES[0], target=6, output="r1", method="saliency")


def test_saved_and_read_again(seg, tmp_path):
    masks = [Mask(1, corner()), Mask(1, ~corner()), Mask(0)]
    e = seg.explain(PICTURES[0], target=masks)
    written = e.save(tmp_path)
    assert sorted(p.name for p in written if "overlay" in p.name) == [
        "image.grad_cam.0.overlay.png",
        "image.grad_cam.1-2.overlay.png",
        "image.grad_cam.1.overlay.png",
    ]
    again = Explanation.load(tmp_path / "image.grad_cam.npz")
    assert (again.labels, again.provenance) == (e.labels, e.provenance)
    facts = again.provenance["images"][0]["targets"]
    assert facts[0] == {"class": 1, "mask": "mask", "weight": 144.0}
    json.dumps(facts)
    np.testing.assert_array_equal(again.values, e.values)


@pytest.mark.parametrize(
    ("model", "options", "inputs"),
    [
        (segmentation(), {}, ["image", "target", "mask"]),
        (segmentation(), {"objective": "box"}, ["image", "target", "box"]),
        (detector(), {"output": "scores"}, ["image", "target", "box"]),
        (embedder(), {}, ["image", "target"]),
        (embedder(), {"objective": "similarity"}, ["image", "reference"]),
    ],
)
def test_compile(model, options, inputs):
    compiled = analyzer.load(model, preprocess=UNIT).compile(**options)
    assert [value.name for value in compiled.graph.input] == inputs


def test_predict_says_why_it_cannot_rank_pixels(seg):
    with pytest.raises(analyzer.ModelRejectedError, match="many places"):
        seg.predict(PICTURES[0])


def test_the_classes_of_a_segmentation(seg):
    assert (seg.classes, seg.label(3), seg.default_layer) == (CLASSES, "d", "backbone")
