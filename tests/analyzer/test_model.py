"""The analyzer on small networks: every promise of the contract that needs no real model."""

import json
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import analyzer
from analyzer import ExplanationWarning, ImageError, ModelRejectedError, Preprocess, UsageError
from tests.analyzer.small_models import CLASSES, bytes_in, cnn, mixing

UNIT = Preprocess(scale=1 / 64, mean=(2.0,))
SIGNED = ("gradient", "deconvnet", "guided_backprop", "guided_grad_cam")
RNG = np.random.default_rng(5)
PICTURES = [RNG.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(3)]
LABELS = ("ant", "bee", "cat, tabby", "dog", "eel")


@pytest.fixture(scope="module")
def small() -> analyzer.Analyzer:
    return analyzer.load(cnn(), preprocess=UNIT, labels=LABELS)


def run_original(model: onnx.ModelProto, **inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def test_facts(small):
    assert small.name == "small"
    assert small.image.layout == "NCHW"
    assert [i.name for i in small.inputs] == ["x"]
    assert [o.name for o in small.outputs] == ["prob"]
    assert (small.classes, small.labels, small.label(3)) == (CLASSES, LABELS, "dog")
    assert tuple(small.scores.peeled) == ("Softmax",)
    assert sum(layer.default for layer in small.layers) == 1
    assert small.default_layer == "a2"
    assert (small.device, small.provider) == ("cpu", "CPUExecutionProvider")
    assert (small.quantised, small.widened) == (False, False)
    assert small.preprocess_origin == "given"


def test_a_fixed_batch_is_freed_and_proven(small):
    assert small.batch == "free"
    assert "together and apart" in small.batch_reason


def test_the_source_is_never_changed():
    model = cnn()
    before = model.SerializeToString(deterministic=True)
    analyzer.load(model, preprocess=UNIT).explain(PICTURES[0])
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("method", analyzer.METHODS)
def test_every_method_gives_maps_of_the_promised_shape(small, method):
    e = small.explain(PICTURES, method=method, target=[1, "dog", None])
    signed = method in SIGNED
    assert e.axes == ("NCHW" if signed else "NHW")
    assert e.values.shape == ((3, 3, 16, 16) if signed else (3, 16, 16))
    assert e.values.dtype == np.float32
    assert e.heatmap.shape == (3, 16, 16)
    assert e.heatmap.max() <= 1
    assert signed or e.values.min() >= 0
    assert e.target[:2].tolist() == [1, 3]
    assert e.labels[1] == ("dog",)
    cam = "cam" in method
    assert (e.grid is not None) == cam
    assert e.layer == (small.default_layer if cam else None)
    assert [p.size for p in e.overlay()] == [(24, 20)] * 3


def test_scores_are_the_logits_and_the_arg_max_follows(small):
    e = small.explain(PICTURES)
    logits = np.log(np.concatenate([run_original(cnn(), x=x[None]) for x in prepared(small)]))
    np.testing.assert_array_equal(e.target, logits.argmax(1))
    # Softmax keeps differences of logits.
    two = small.explain(PICTURES, target=[[0, 4]] * 3)
    np.testing.assert_allclose(
        two.scores[:, 0] - two.scores[:, 1], logits[:, 0] - logits[:, 4], atol=1e-4
    )


def prepared(small):
    return [
        small.preprocess.apply(analyzer.pictures.read_picture(one, (255, 255, 255)), small.image)[0]
        for one in PICTURES
    ]


def test_original_outputs_come_along_unchanged(small):
    e = small.explain(PICTURES)
    expected = np.concatenate([run_original(cnn(), x=x[None]) for x in prepared(small)])
    np.testing.assert_allclose(e.outputs["prob"], expected, rtol=1e-5, atol=1e-7)


def test_gradient_agrees_with_differences():
    """On a smooth network, where no kink spoils the difference."""
    smooth = analyzer.load(cnn(activation="Sigmoid"), preprocess=UNIT)
    x = prepared(smooth)[0][None]
    e = smooth.explain(x, method="gradient", target=2)
    step = 0.05 * e.values / np.abs(e.values).max()
    moved = smooth.explain(np.concatenate([x + step, x - step]), target=2)
    slope = moved.scores[0] - moved.scores[1]
    assert slope == pytest.approx(2 * float((e.values * step).sum()), rel=1e-2)


def test_images_together_equal_images_apart(small):
    for method in analyzer.METHODS:
        joint = small.explain(PICTURES, method=method, target=[0, 1, 2])
        for i, picture in enumerate(PICTURES):
            alone = small.explain(picture, method=method, target=i)
            np.testing.assert_allclose(joint[i].values, alone.values, atol=1e-5)


def test_several_targets_equal_one_each(small):
    for method in ("saliency", "guided_grad_cam"):
        many = small.explain(PICTURES, method=method, target=[[0, 3], [1, 1], [2, 4]])
        assert many.axes == ("NTCHW" if method in SIGNED else "NTHW")
        first = small.explain(PICTURES, method=method, target=[0, 1, 2])
        second = small.explain(PICTURES, method=method, target=[3, 1, 4])
        np.testing.assert_allclose(many.values[:, 0], first.values, atol=1e-6)
        np.testing.assert_allclose(many.values[:, 1], second.values, atol=1e-6)
    one = small.explain(PICTURES[0], target=["ant", "bee"])
    assert (one.axes, one.target.tolist(), one.labels) == ("NTHW", [[0, 1]], (("ant", "bee"),))
    assert len(one.overlay()) == 2


def test_several_targets_of_a_network_that_works_along_the_images():
    """As `features[arange(N), best]` is exported: its indices count the images."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N,3,8,8] x) => (float[N,5] y) '
        "<int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}, int64[2] sides = {2, 3}> {"
        "map = Conv<strides=[4,4]>(x, w) relu = Relu(map) "
        "mean = ReduceMean<keepdims=0>(relu, sides) best = ArgMax<axis=1>(mean) "
        "count = Shape<end=1>(best) n = Squeeze(count) "
        "images = Range(zero, n, one) rows = Unsqueeze(images, axis) "
        "index = Concat<axis=1>(rows, best) kept = GatherND(relu, index) "
        "flat = Flatten(kept) y = MatMul(flat, v) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (6, 3, 4, 4), "v": (4, 5)}.items():
        value = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    a = analyzer.load(model, preprocess="raw")
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    found = a.explain(x, method="gradient", target=[[0, 1, 2], [3, 4, 0]])
    for n, targets in enumerate([[0, 1, 2], [3, 4, 0]]):
        for t, target in enumerate(targets):
            alone = a.explain(x[n : n + 1], method="gradient", target=target)
            np.testing.assert_allclose(found.values[n, t], alone.values[0], atol=1e-6)


def test_several_methods_and_layers_share_a_run(small):
    found = small.explain(PICTURES[0], method=("saliency", "grad_cam"), target=1)
    assert list(found) == ["saliency", "grad_cam"]
    for method, e in found.items():
        assert e.method == method
        alone = small.explain(PICTURES[0], method=method, target=1)
        np.testing.assert_allclose(e.values, alone.values, atol=1e-6)
    first, last = small.layers[0].tensor, small.layers[-1].tensor
    layers = small.explain(PICTURES[0], layer=(first, last), target=1)
    assert list(layers) == [f"grad_cam/{first}", f"grad_cam/{last}"]
    np.testing.assert_allclose(
        layers[f"grad_cam/{first}"].values,
        small.explain(PICTURES[0], layer=first, target=1).values,
        atol=1e-6,
    )


def test_several_layers_are_saved_side_by_side(small, tmp_path):
    explained = small.explain(PICTURES[0], layer=("a1", "c2", "a2"))
    written = [path for e in explained.values() for path in e.save(tmp_path)]
    assert len(written) == 9
    assert sorted(written) == sorted(tmp_path.iterdir())
    assert tmp_path / "image.grad_cam.c2.npz" in written
    twins = small.explain(PICTURES[0], method=("saliency", "grad_cam"), layer="a1")
    assert [e.mark for e in twins.values()] == ["", ""]


@pytest.mark.parametrize("index", [0, "0", -4, "-4", np.int64(0)])
def test_an_index_is_recorded_as_the_layer_s_name(small, index):
    first = small.layers[0].tensor
    e = small.explain(PICTURES[0], layer=index, target=1)
    assert (e.layer, e.provenance["layer"]) == (first, first)
    by_name = small.explain(PICTURES[0], layer=first, target=1)
    np.testing.assert_array_equal(e.values, by_name.values)
    outputs = [o.name for o in small.compile(layer=(index, "a2")).graph.output]
    assert {f"map/grad_cam/{first}", "map/grad_cam/a2"} <= set(outputs)


def test_an_index_finds_the_layer_even_if_a_tensor_has_its_number():
    model = cnn()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [{"a2": "1", "p": "2"}.get(name, name) for name in names]
    numbered = analyzer.load(model, preprocess=UNIT)
    assert [m.tensor for m in numbered.layers] == ["c1", "a1", "c2", "1"]
    assert [m.index for m in numbered.layers] == [0, -3, -2, 3]
    for i, layer in enumerate(numbered.layers):
        for asked in (i, layer.index, str(layer.index)):
            assert numbered.explain(PICTURES[0], layer=asked).layer == layer.tensor
    assert numbered.explain(PICTURES[0], layer="1").layer == "1"


def test_bytes_and_channels_last():
    model = bytes_in()
    a = analyzer.load(model)  # raw bytes are assumed for a uint8 input, with a warning
    with pytest.warns(ExplanationWarning, match="nobody declared.*RGB 0-255 without mean"):
        e = a.explain(PICTURES[0], method="gradient", target=1)
    assert e.values.shape == (1, 3, 16, 16)
    # The same network fed with floats: the derivative per step of the byte is 1/64 of the other.
    bytes_ = a.preprocess.apply(e.pictures[0], a.image)[0]
    floats = (bytes_.astype(np.float32) / 64).transpose(2, 0, 1)[None]
    plain = analyzer.load(cnn(), preprocess="raw").explain(floats, method="gradient", target=1)
    np.testing.assert_allclose(e.values, plain.values / 64, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_images_that_mix_run_one_by_one(batch, caplog):
    a = analyzer.load(mixing(batch), preprocess=UNIT)
    assert a.batch == (1 if batch == "N" else batch)
    if batch != "N":
        assert f"fixes the batch at {batch}" in a.batch_reason
    joint = a.explain(PICTURES, target=[0, 1, 2])
    for i, picture in enumerate(PICTURES):
        alone = a.explain(picture, target=i)
        np.testing.assert_allclose(joint[i].values, alone.values, atol=1e-6)
    prediction = a.predict(PICTURES).values
    np.testing.assert_allclose(prediction[1], a.predict(PICTURES[1]).values[0], atol=1e-6)


def test_open_sizes_take_arrays_of_any_size():
    a = analyzer.load(cnn(batch="N", size=("h", "w"), flatten=(-1, 12)), preprocess=UNIT)
    with pytest.raises(UsageError, match="size"):
        a.explain(PICTURES[0])
    e = a.explain(RNG.standard_normal((2, 3, 12, 30)).astype(np.float32), target=1)
    assert e.values.shape == (2, 12, 30)
    sized = analyzer.load(
        cnn(batch="N", size=("h", "w"), flatten=(-1, 12)), preprocess={"size": [10, 14]}
    )
    assert sized.explain(PICTURES[0]).values.shape == (1, 10, 14)


def test_one_logit_behind_a_sigmoid_has_two_answers():
    model = cnn(head="Sigmoid")
    weights = {t.name: t for t in model.graph.initializer}
    for name, keep in (("w3", (1, 12)), ("b3", (1,))):
        array = onnx.numpy_helper.to_array(weights[name])[:1]
        weights[name].CopyFrom(onnx.numpy_helper.from_array(array.reshape(keep), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    a = analyzer.load(model, preprocess=UNIT, labels=["no", "yes"])
    assert a.classes == 2
    e = a.explain(PICTURES[0], method="gradient", target=["no", "yes"])
    np.testing.assert_allclose(e.values[:, 0], -e.values[:, 1], atol=1e-7)
    prediction = a.predict(PICTURES)
    assert prediction.values.shape == (3, 2)
    np.testing.assert_allclose(prediction.values.sum(1), 1, atol=1e-6)


def test_prediction(small):
    found = small.predict(PICTURES)
    assert found.kind == "probability"
    np.testing.assert_allclose(found.values.sum(1), 1, atol=1e-5)
    best = found.top(2)[1][0]
    assert best.index == found.values[1].argmax()
    assert best.label == LABELS[best.index]
    assert best.value == found.values[1].max()
    assert [len(row) for row in found.top(2)] == [2, 2, 2]


def test_compiled_model_stands_alone(small):
    compiled = small.compile(method=("saliency", "grad_cam"), targets=2)
    onnx.checker.check_model(compiled, full_check=True)
    x = np.stack(prepared(small))
    session = onnxruntime.InferenceSession(
        compiled.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    target = np.array([[0, 1], [2, 3], [-1, 4]])
    found = dict(zip(names, session.run(None, {"x": x, "target": target}), strict=True))
    e = small.explain(PICTURES, method="saliency", target=target)
    np.testing.assert_allclose(found["map/saliency"], e.values, atol=1e-6)


def test_provenance_is_complete_and_plain(small, tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(PICTURES[0]).save(path)
    e = small.explain(path, method="guided_backprop")
    record = json.loads(json.dumps(e.provenance))
    assert record == e.provenance
    assert record["model"]["sha256"] == small.sha256
    assert record["model"]["scores"]["peeled"] == ["Softmax"]
    assert record["runtime"]["provider"] == "CPUExecutionProvider"
    assert record["runtime"]["onnxruntime"] == onnxruntime.__version__
    assert record["versions"]["onnx"] == onnx.__version__
    assert record["preprocess"]["mean"] == [2.0]
    assert record["conventions"]["relu_rule"] == "guided"
    assert record["images"][0]["name"] == "p.png"
    assert record["images"][0]["size"] == [20, 24]
    assert record["images"][0]["exif_orientation"] == 1
    assert "quantised" not in record["conventions"]
    passed = small.explain(np.stack(prepared(small))).provenance
    assert passed["preprocess"] == {"origin": "preprocessed by the caller"}


def test_explanations_survive_the_disk(small, tmp_path):
    e = small.explain(PICTURES, method="guided_grad_cam", target=[0, 1, 2])
    found = analyzer.Explanation.load(e.save(tmp_path / "e.npz")[0])
    np.testing.assert_array_equal(found.values, e.values)
    assert found.coverage == e.coverage
    assert found.provenance == e.provenance


def test_coverage(small):
    assert {a.rule for a in small.coverage("guided_backprop").activations} == {"guided"}
    assert {a.rule for a in small.explain(PICTURES[0], "deconvnet").coverage.activations} == {
        "deconvnet"
    }


def test_an_empty_map_warns():
    model = cnn()
    for tensor in model.graph.initializer:
        if tensor.name == "b2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(12, -99, np.float32), "b2"))
    a = analyzer.load(model, preprocess=UNIT, labels=LABELS)
    with pytest.warns(
        ExplanationWarning, match="image: the saliency map of dog is zero everywhere"
    ):
        e = a.explain(PICTURES[0], method="saliency", target="dog")
    assert e.heatmap.max() == 0


def test_guided_without_any_relu_warns():
    a = analyzer.load(cnn(activation="Sigmoid"), preprocess=UNIT)
    with pytest.warns(ExplanationWarning, match="no ReLU"):
        a.explain(PICTURES[0], method="guided_backprop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a.explain(PICTURES[0], method="gradient")


def test_an_assumption_warns_once():
    a = analyzer.load(cnn())
    assert a.preprocess_origin == "assumed"
    with pytest.warns(ExplanationWarning, match="'imagenet'"):
        a.explain(PICTURES[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a.explain(PICTURES[0])
        analyzer.load(cnn()).explain(np.zeros((1, 3, 16, 16), np.float32) + 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"method": "grad_cm"}, "nearest: grad_cam"),
        ({"target": "catt"}, "nearest: cat"),
        ({"target": 5}, "0 to 4"),
        ({"target": -2}, "0 to 4"),
        ({"layer": "act9"}, "act9"),
        ({"layer": "500"}, "'500'; its layers are -4 to 3"),
        ({"layer": 500}, "500.* its index, -4 to 3"),
        ({"layer": -5}, "-5.* its index, -4 to 3"),
        ({"layer": 0.5}, r"0\.5.* name of a layer, or its index"),
        ({"layer": (0, "c1")}, "each method and layer once"),
        ({"method": "saliency", "layer": "a1"}, "takes no layer"),
        ({"other_activations": "none"}, "known: gradient"),
    ],
)
def test_usage_errors(small, call, message):
    with pytest.raises(UsageError, match=message) as caught:
        small.explain(PICTURES[0], **call)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_usage_errors_of_lists(small):
    with pytest.raises(UsageError, match="2 targets for 3 images"):
        small.explain(PICTURES, target=[0, 1])
    with pytest.raises(UsageError, match="no images"):
        small.explain([])
    with pytest.raises(ImageError):
        small.explain([PICTURES[0], "none.png"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"preprocess": "imagnet"}, "nearest: imagenet"),
        ({"labels": ["a", "b"]}, "2 class names for 5 classes"),
        ({"device": "tpu"}, "known: cpu"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_load_errors(keys, message):
    with pytest.raises(UsageError, match=message):
        analyzer.load(cnn(), **keys)


def test_models_without_an_image_are_rejected():
    model = cnn()
    del model.graph.input[0].type.tensor_type.shape.dim[3]
    with pytest.raises(ModelRejectedError, match=r"takes no image|not a valid"):
        analyzer.load(model)


def test_strict_policy_names_the_activation():
    a = analyzer.load(cnn(activation="Sigmoid"), preprocess=UNIT)
    with pytest.raises(ModelRejectedError, match="Sigmoid"):
        a.explain(PICTURES[0], method="guided_backprop", other_activations="strict")


def test_batch_size_changes_nothing(small):
    again = analyzer.load(cnn(), preprocess=UNIT, batch_size=2)
    np.testing.assert_allclose(
        again.explain(PICTURES, target=1).values,
        small.explain(PICTURES, target=1).values,
        atol=1e-6,
    )
