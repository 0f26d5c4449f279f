"""Real files: known by hash, preprocessed as published, right about photographs, free in batch."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import analyzer

pytestmark = pytest.mark.shared

MODELS = (
    "mobilenet_v2_imagenet_qdq.onnx",
    "mobilenet_v2_imagenet_f32.onnx",
    "squeezenet1.1_imagenet_fp16.onnx",
    "cifar10_pytorch.onnx",
    "mnist_cntk.onnx",
)
SAYS = {  # photograph: class and probability, as the assets' README states for MobileNetV2
    "chelsea.png": ("tiger cat", 0.55),
    "coffee.png": ("espresso", 0.97),
    "cheetah_person.jpg": ("cheetah", 1.0),
    "dog_cat.png": ("bull mastiff", 0.80),
    "goldfish.jpg": ("goldfish", 1.0),
    "bear.jpg": ("brown bear", 0.99),
    "snake.png": ("king snake", 0.63),
    "kitten_224.png": ("tabby", 0.93),
    "fish.png": ("tench", 0.75),
    "hot_dog.jpg": ("hotdog", 0.98),
}


@pytest.fixture(scope="module")
def load(shared: Path):
    loaded = {}

    def one(name: str) -> analyzer.Analyzer:
        if name not in loaded:
            loaded[name] = analyzer.load(shared / "models" / name)
        return loaded[name]

    return one


@pytest.mark.parametrize("name", MODELS)
def test_the_catalogue_knows_the_file_and_its_batch_is_free(load, name):
    a = load(name)
    assert a.preprocess_origin.startswith("catalogue entry")
    assert len(a.labels) == a.classes
    assert a.batch == "free", a.batch_reason


def test_mobilenet_says_what_the_readme_states(load, shared):
    photographs = [shared / "images" / name for name in SAYS]
    ranked = load(MODELS[0]).predict(photographs).top(1)
    for (best,), (name, (label, chance)) in zip(ranked, SAYS.items(), strict=True):
        assert label in best.label, name
        assert best.value == pytest.approx(chance, abs=0.1), name


def test_squeezenet_agrees_on_most(load, shared):
    photographs = [shared / "images" / name for name in SAYS]
    ranked = load(MODELS[2]).predict(photographs).top(5)
    found = [
        any(label in guess.label for guess in best)
        for best, (label, _) in zip(ranked, SAYS.values(), strict=True)
    ]
    assert sum(found) >= 8


def test_the_digit_is_an_eight(load, shared):
    e = load("mnist_cntk.onnx").explain(shared / "images" / "mnist_28.png")
    assert e.labels == (("8",),)
    assert e.values.shape == (1, 28, 28)


@pytest.mark.parametrize("name", MODELS[:3])
def test_the_layer_that_an_explanation_names_is_the_one_it_used(load, shared, name):
    picture = shared / "images" / "chelsea.png"
    e = load(name).explain(picture)
    again = load(name).explain(picture, layer=e.layer)
    np.testing.assert_array_equal(e.values, again.values)


@pytest.mark.parametrize("name", MODELS)
def test_photographs_together_equal_photographs_apart(load, shared, name):
    a = load(name)
    photographs = [shared / "images" / p for p in ("chelsea.png", "dog_cat.png", "bear.jpg")]
    joint = a.explain(photographs, "guided_grad_cam", target=[1, 2, 3])
    for i, photograph in enumerate(photographs):
        alone = a.explain(photograph, "guided_grad_cam", target=i + 1)
        difference = np.linalg.norm(joint[i].values - alone.values)
        assert difference <= 1e-4 * np.linalg.norm(alone.values)
        for output, array in alone.outputs.items():
            if array.dtype.kind in "iu":
                np.testing.assert_array_equal(joint[i].outputs[output], array)


def test_pictures_have_the_photograph_s_size_and_heat_only_where_the_model_looked(load, shared):
    photograph = shared / "images" / "chelsea.png"
    e = load(MODELS[0]).explain(photograph, "grad_cam")
    with Image.open(photograph) as original:
        before = np.asarray(original.convert("RGB")).astype(int)
    after = np.asarray(e.overlay()).astype(int)
    assert after.shape == before.shape == (300, 451, 3)
    changed = np.abs(after - before).max(axis=(0, 2)) > 0
    assert not changed[:75].any()
    assert not changed[376:].any()
    assert changed[76:375].all()


def test_a_turned_photograph_gives_the_same_map(load, shared):
    folder = shared / "corpora" / "exif_orientation"
    a = load(MODELS[1])
    upright = a.explain(folder / "Landscape_1.jpg", target=980)
    turned = a.explain(folder / "Landscape_6.jpg", target=980)
    assert turned.provenance["images"][0]["exif_orientation"] == 6
    assert upright.overlay().size == turned.overlay().size
    correlation = np.corrcoef(upright.heatmap.ravel(), turned.heatmap.ravel())[0, 1]
    assert correlation > 0.98
