"""Real files and photographs: a quantised MobileNetV2 and a float16 SqueezeNet, both ImageNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image, ImageOps

import analyzer
import graph_rewrites as gr
from tests.graph_rewrites.test_quantized import spearman

pytestmark = pytest.mark.shared

DOG = (75, 10, 167, 142)  # left, top, right, bottom in the 224 x 224 picture
CAT = (40, 120, 203, 223)
PHOTOGRAPHS = (
    "bear.jpg", "cheetah_person.jpg", "chelsea.png", "coffee.png", "dog_cat.png", "fish.png",
    "goldfish.jpg", "hot_dog.jpg", "kitten_224.png", "snake.png",
)  # fmt: skip


def peak(heat: np.ndarray) -> tuple[int, int]:
    """Column and row of the maximum."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(column), int(row)


def inside(point: tuple[int, int], box: tuple[int, int, int, int]) -> bool:
    return box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3]


@pytest.fixture(scope="module")
def quantised(shared: Path) -> analyzer.Analyzer:
    return _mobilenet(shared, "mobilenet_v2_imagenet_qdq.onnx")


@pytest.fixture(scope="module")
def float_twin(shared: Path) -> analyzer.Analyzer:
    return _mobilenet(shared, "mobilenet_v2_imagenet_f32.onnx")


def _mobilenet(shared: Path, name: str) -> analyzer.Analyzer:
    labels = shared / "models" / "imagenet_labels_1001.txt"
    return analyzer.load(shared / "models" / name, preprocess="raw", labels=labels)


@pytest.fixture(scope="module")
def squeezenet(shared: Path) -> analyzer.Analyzer:
    labels = (shared / "models" / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    return analyzer.load(
        shared / "models" / "squeezenet1.1_imagenet_fp16.onnx", preprocess="caffe", labels=labels
    )


@pytest.mark.parametrize("model", ["quantised", "squeezenet"])
def test_grad_cam_finds_the_dog_and_the_cat(
    model: str, request: pytest.FixtureRequest, shared: Path
) -> None:
    """The quantised MobileNetV2 and the float16 SqueezeNet."""
    loaded: analyzer.Analyzer = request.getfixturevalue(model)
    e = loaded.explain(
        shared / "images" / "dog_cat.png", "grad_cam", target=["bull mastiff", "tiger cat"]
    )
    dog, cat = e.heatmap[0]
    assert inside(peak(dog), DOG), peak(dog)
    assert inside(peak(cat), CAT), peak(cat)
    assert np.linalg.norm(dog - cat) > 0.1 * np.linalg.norm(dog)


@pytest.mark.parametrize("method", ["saliency", "gradient", "guided_backprop", "deconvnet"])
def test_quantised_pixel_maps_are_neither_constant_nor_the_same_for_both_classes(
    quantised: analyzer.Analyzer, shared: Path, method: str
) -> None:
    e = quantised.explain(
        shared / "images" / "dog_cat.png", method, target=["bull mastiff", "tiger cat"]
    )
    dog, cat = e.values[0]
    assert dog.std() > 0
    assert np.unique(dog).size > 1000
    assert np.linalg.norm(dog - cat) > 0.1 * np.linalg.norm(dog)


def test_the_float_twin_gives_nearly_the_same_maps(
    quantised: analyzer.Analyzer, float_twin: analyzer.Analyzer, shared: Path
) -> None:
    picture = shared / "images" / "dog_cat.png"
    target = ["bull mastiff", "tiger cat"]
    ours, twin = (m.explain(picture, "grad_cam", target=target) for m in (quantised, float_twin))
    figures = [spearman(a, b) for a, b in zip(ours.values[0], twin.values[0], strict=True)]
    assert min(figures) >= 0.9, figures


def test_outputs_are_bit_equal_and_convolutions_stay_in_integers(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "models" / "mobilenet_v2_imagenet_qdq.onnx"
    model = onnx.load(source)
    for method in gr.METHODS:
        explained = gr.explanation_model(model, method)
        onnx.checker.check_model(explained, full_check=True)
        assert {n.domain for n in explained.graph.node} == {""}
        before, plain = _open(model, tmp_path / "plain.onnx")
        after, ours = _open(explained, tmp_path / "explained.onnx")
        assert before == after == 53
        name = model.graph.input[0].name
        output = model.graph.output[0].name
        for photograph in PHOTOGRAPHS[:: 1 if method == "guided_grad_cam" else 5]:
            x = _bytes(shared / "images" / photograph)
            (expected,) = plain.run([output], {name: x})
            (got,) = ours.run([output], {name: x, "target": np.array([-1])})
            np.testing.assert_array_equal(got, expected)


def _bytes(path: Path) -> np.ndarray:
    """A centre-cropped square of 224 pixels as RGB bytes, (1, 224, 224, 3)."""
    with Image.open(path) as image:
        square = ImageOps.fit(image.convert("RGB"), (224, 224), Image.Resampling.BILINEAR)
    return np.asarray(square)[None]


def _open(model: onnx.ModelProto, path: Path) -> tuple[int, ort.InferenceSession]:
    """The number of integer convolutions that the runtime runs, and the session."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimised = onnx.load(path)
    return sum(n.op_type == "QLinearConv" for n in optimised.graph.node), session


def test_coverage_of_the_quantised_file_lists_its_35_relus(shared: Path) -> None:
    model = onnx.load(shared / "models" / "mobilenet_v2_imagenet_qdq.onnx")
    grads = gr.differentiate(model, wrt=[model.graph.input[0].name], relu="guided")
    assert [(a.kind, a.rule) for a in gr.coverage(grads).relus] == [("clip", "guided")] * 35


def test_float16_outputs_agree_with_the_originals(shared: Path, tmp_path: Path) -> None:
    path = shared / "models" / "squeezenet1.1_imagenet_fp16.onnx"
    model = onnx.load(path)
    explained = gr.explanation_model(model, "guided_grad_cam")
    _, plain = _open(model, tmp_path / "plain.onnx")
    _, ours = _open(explained, tmp_path / "explained.onnx")
    mean = np.array([104, 117, 123], np.float16)
    for photograph in PHOTOGRAPHS:
        bgr = _bytes(shared / "images" / photograph)[..., ::-1] - mean
        x = np.ascontiguousarray(bgr.transpose(0, 3, 1, 2))
        (expected,) = plain.run(None, {"data_0": x})
        got = ours.run(["softmaxout_1"], {"data_0": x, "target": np.array([-1])})[0]
        np.testing.assert_allclose(
            got.astype(np.float32), expected.astype(np.float32), atol=2e-3, rtol=0
        )


def test_float16_reproduces_its_published_golden_output(shared: Path) -> None:
    """BGR, 0 to 255, no mean: what the file's publishers fed it."""
    table = shared / "models" / "squeezenet1.1_fish_golden.csv"
    golden = np.loadtxt(table, delimiter=",", skiprows=1, dtype=np.float32)[:, 1]
    loaded = analyzer.load(
        shared / "models" / "squeezenet1.1_imagenet_fp16.onnx",
        preprocess={"preset": "raw", "channels": "BGR"},
    )
    e = loaded.explain(shared / "images" / "fish.png", "saliency")
    got = e.outputs["softmaxout_1"].astype(np.float32).ravel()
    np.testing.assert_allclose(got, golden, atol=2e-3, rtol=0)
