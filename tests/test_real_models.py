"""Real files and photographs: a quantised MobileNetV2 and a float16 SqueezeNet, both ImageNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import analyzer
import graph_rewrites as gr
from tests.graph_rewrites.runtime import run
from tests.graph_rewrites.test_quantized import spearman
from tests.photographs import PHOTOGRAPHS, square_bytes

pytestmark = pytest.mark.shared

DOG = (75, 10, 167, 142)  # left, top, right, bottom in the 224 x 224 picture
CAT = (40, 120, 203, 223)


def peak(heat: np.ndarray) -> tuple[int, int]:
    """Column and row of the maximum."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(column), int(row)


def inside(point: tuple[int, int], box: tuple[int, int, int, int]) -> bool:
    return box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3]


@pytest.fixture(scope="module")
def quantised(shared: Path) -> analyzer.Analyzer:
    return analyzer.load(
        shared / "models" / "mobilenet_v2_imagenet_qdq.onnx",
        preprocess="raw",
        labels=shared / "models" / "imagenet_labels_1001.txt",
    )


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


def test_the_float_twin_gives_nearly_the_same_maps(shared: Path) -> None:
    """Grad-CAM on the layer's own grid of 49 positions, of every photograph."""
    models = [
        onnx.load(shared / "models" / f"mobilenet_v2_imagenet_{kind}.onnx")
        for kind in ("qdq", "f32")
    ]
    name = models[0].graph.input[0].name
    pictures = np.concatenate([square_bytes(shared / "images" / p) for p in PHOTOGRAPHS])
    feeds = {name: pictures, "target": np.full(len(pictures), -1)}
    ours, twin = (run(gr.explanation_model(model, "grad_cam"), feeds) for model in models)
    np.testing.assert_array_equal(ours["target/used"], twin["target/used"])
    grids = zip(ours["map/grad_cam/raw"], twin["map/grad_cam/raw"], strict=True)
    figures = [spearman(a, b) for a, b in grids]
    assert min(figures) >= 0.9, figures


def test_a_layer_of_the_quantised_file_is_listed_once(shared: Path) -> None:
    """Not also between a convolution and its ReLU6, where the integer kernel holds no number."""
    maps = gr.feature_maps(onnx.load(shared / "models" / "mobilenet_v2_imagenet_qdq.onnx"))
    assert len(maps) == len({found.path for found in maps}) == 62
    assert [found.path for found in maps if found.default] == ["MobilenetV2/Conv_1"]


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
            x = square_bytes(shared / "images" / photograph)
            (expected,) = plain.run([output], {name: x})
            (got,) = ours.run([output], {name: x, "target": np.array([-1])})
            np.testing.assert_array_equal(got, expected)


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
        bgr = square_bytes(shared / "images" / photograph)[..., ::-1] - mean
        x = np.ascontiguousarray(bgr.transpose(0, 3, 1, 2))
        (expected,) = plain.run(None, {"data_0": x})
        got = ours.run(["softmaxout_1"], {"data_0": x, "target": np.array([-1])})[0]
        np.testing.assert_allclose(
            got.astype(np.float32), expected.astype(np.float32), atol=2e-3, rtol=0
        )


def test_float16_is_the_same_file_in_float32(shared: Path) -> None:
    """Scores and gradients; the probabilities, which stay float16, but for their last digit."""
    model = onnx.load(shared / "models" / "squeezenet1.1_imagenet_fp16.onnx")
    mean = np.array([104, 117, 123], np.float16)
    photographs = [square_bytes(shared / "images" / p) for p in PHOTOGRAPHS[::3]]
    x = (np.concatenate(photographs)[..., ::-1] - mean).transpose(0, 3, 1, 2)
    results = []
    for file in (model, _in_float32(model)):
        half = file is model
        feeds = {"data_0": np.ascontiguousarray(x, np.float16 if half else np.float32)}
        explained = gr.explanation_model(file, ("gradient", "grad_cam"))
        results.append(run(explained, {**feeds, "target": np.full(len(x), -1)}))
    ours, twin = results
    for name in ("score/used", "map/gradient", "map/grad_cam/raw"):
        assert ours[name].dtype == twin[name].dtype == np.float32
        error = np.linalg.norm(ours[name] - twin[name]) / np.linalg.norm(twin[name])
        assert error <= 1e-5, f"{name}: {error:.1e}"
    rounded = twin["softmaxout_1"].astype(np.float16)
    np.testing.assert_array_max_ulp(ours["softmaxout_1"], rounded, maxulp=1, dtype=np.float16)


def _in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with every weight, input and output as float32."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for weight in copy.graph.initializer:
        value = onnx.numpy_helper.to_array(weight).astype(np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return copy


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
