"""Sessions for the shapes that come: opened once for each, and equal to the portable model."""

import numpy as np
import pytest

import analyzer
import graph_rewrites as gr
from analyzer import specialized
from analyzer.errors import AnalyzerError
from analyzer.explaining import Explainers
from analyzer.plan import Plan
from analyzer.session import Session
from analyzer.specialized import SpecializedSession
from tests.graph_rewrites.samples import graph_of
from tests.graph_rewrites.test_quantized import pictures, small_cnn


@pytest.fixture
def opened(monkeypatch) -> list[gr.Scores]:
    """Every session that is opened."""
    every = []

    class Counted(Session):
        def __init__(self, *args, **keys):
            super().__init__(*args, **keys)
            self.threads = keys["threads"]
            every.append(self)

    monkeypatch.setattr(specialized, "Session", Counted)
    return every


def feeds(count: int) -> dict[str, np.ndarray]:
    return {"image": pictures(count, seed=count), "target": np.full(count, -1)}


def test_it_computes_what_the_portable_model_does():
    model = gr.explanation_model(small_cnn(), ("gradient", "grad_cam"))
    session, portable = SpecializedSession(model, "cpu"), Session(model)
    for count in (1, 3):
        found, expected = session.run(feeds(count)), portable.run(feeds(count))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)
    assert session.settings == {**portable.settings, "lowered": "cpu"}


def test_a_shape_is_opened_once_and_two_are_kept(opened):
    session = SpecializedSession(gr.explanation_model(small_cnn(), "gradient"), "cpu")
    for count in (1, 2, 1, 2, 3, 2, 1):
        session.run(feeds(count))
    assert len(opened) == 4  # 1, 2, 3 for 1, and 1 again


@pytest.mark.parametrize(
    ("device", "picture", "size", "images"),
    [
        ("cpu", (3, 224, 224), None, 1),
        ("cpu", (3, 512, 512), None, 1),
        ("cpu", (112, 112, 3), None, 4),
        ("cpu", (112, 112, 3), 2, 2),
        ("cpu", (1, 28, 28), None, 8),
        ("cpu", (1, 28, 28), 16, 8),
        ("cuda", (3, 224, 224), None, 8),
        ("cuda", (3, 224, 224), 16, 16),
    ],
)
def test_small_pictures_share_a_run_and_large_ones_lose_by_it(device, picture, size, images):
    session = SpecializedSession(gr.explanation_model(small_cnn(), "gradient"), device)
    assert session.run_size(picture, size) == images


@pytest.mark.parametrize(("classes", "images"), [(24_000, 4), (2_000, 1)])
@pytest.mark.parametrize(
    "dense", ["y = Gemm(f, w)", "y = Gemm<transB=1>(f, w)", "y = MatMul(f, w)"]
)
def test_large_dense_weights_are_read_for_four_pictures(dense, classes, images):
    shape = (classes, 768) if "transB" in dense else (768, classes)
    body = f"p = MaxPool<kernel_shape=[14,14], strides=[14,14]>(x) f = Flatten(p) {dense}"
    model = graph_of(
        f"net (float[N,3,224,224] x) => (float[N,{classes}] y) {{ {body} }}",
        w=np.zeros(shape, np.float32),
    )
    session = SpecializedSession(gr.explanation_model(model, "gradient"), "cpu")
    assert session.run_size((3, 224, 224), None) == images
    assert session.run_size((3, 448, 448), None) == 1
    assert session.run_size((3, 224, 224), 2) == min(images, 2)


def singles(count: int) -> list[dict[str, np.ndarray]]:
    return [{name: value[i : i + 1] for name, value in feeds(count).items()} for i in range(count)]


def test_runs_side_by_side_compute_the_same_to_the_last_bit():
    model = gr.explanation_model(small_cnn(), ("gradient", "grad_cam"))
    session = SpecializedSession(model, "cpu", threads=2)
    found = session.run_each(singles(5))
    for apart, single in zip(found, singles(5), strict=True):
        for name, value in session.run(single).items():
            np.testing.assert_array_equal(apart[name], value)


@pytest.mark.parametrize(
    ("images", "at_once", "room", "threads"),
    [
        (9, None, 100, 1),
        (4, None, 100, 1),
        (3, None, 100, 4),  # too few for all threads: they share each run
        (9, 2, 100, 3),  # four in all: each of the two runs brings a thread of its own
        (9, 1, 100, 4),
        (9, None, 3, 2),  # three pictures fit into memory
        (9, None, 2, 3),
        (9, None, 0.5, 4),
    ],
)
def test_threads_are_shared_out(opened, monkeypatch, images, at_once, room, threads):
    batches = singles(images)
    monkeypatch.setattr(specialized, "_AT_ONCE", int(room * batches[0]["image"].size))
    model = gr.explanation_model(small_cnn(), "gradient")
    session = SpecializedSession(model, "cpu", threads=4, at_once=at_once)
    assert len(session.run_each(batches)) == images
    assert [each.threads for each in opened] == [threads]


def test_what_fails_side_by_side_runs_one_by_one(monkeypatch):
    session = SpecializedSession(gr.explanation_model(small_cnn(), "gradient"), "cpu", threads=2)
    expected = [session.run(single)["map/gradient"] for single in singles(4)]
    opened = session._open

    def narrow(shapes, threads, **keys):
        if threads == 1:
            raise AnalyzerError("out of memory")
        return opened(shapes, threads, **keys)

    monkeypatch.setattr(session, "_open", narrow)
    found = [outputs["map/gradient"] for outputs in session.run_each(singles(4))]
    np.testing.assert_array_equal(found, expected)
    assert session.settings["lowered"] == "cpu"


def test_what_does_not_run_lowered_runs_portable_and_says_so(monkeypatch, caplog):
    model = gr.explanation_model(small_cnn(), "gradient")
    expected = Session(model).run(feeds(2))["map/gradient"]

    def fails(*_, **__):
        raise gr.ModelError("no shape")

    monkeypatch.setattr(specialized, "lowered_graph", fails)
    session = SpecializedSession(model, "cpu")
    for _ in range(2):
        np.testing.assert_array_equal(session.run(feeds(2))["map/gradient"], expected)
    assert session.settings["lowered"] == "no: no shape"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_wrong_inputs_are_an_error_of_the_caller_and_no_defect():
    session = SpecializedSession(gr.explanation_model(small_cnn(), "gradient"), "cpu")
    with pytest.raises(AnalyzerError, match="the runtime failed"):
        session.run({"image": np.zeros((1, 3, 7, 7), np.float32), "target": np.array([0])})
    assert session.run(feeds(1))["map/gradient"].any()
    assert session.settings["lowered"] == "cpu"


def test_asking_again_opens_nothing(opened):
    loaded = analyzer.load(small_cnn(), preprocess="tf")
    images = list(np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8))
    for asked in (images, images[:1], images, images[:1]):
        loaded.explain(asked, "saliency")
    assert len(opened) == 2


class Sized:
    """An explainer of some size."""

    def __init__(self, size):
        self.size = size


@pytest.mark.parametrize(("size", "kept"), [(1, 8), (2**27, 8), (2**28, 4), (2**29, 2), (2**31, 1)])
def test_the_explainers_kept_fit_into_a_budget(size, kept):
    explainers, built = Explainers(), []

    def build(plan):
        built.append(plan)
        return Sized(size)

    plans = [Plan.of("gradient", None, targets, "gradient") for targets in range(1, 11)]
    for plan in plans:
        explainers.get(plan, build)
    for plan in plans[::-1]:
        explainers.get(plan, build)
    assert len(built) == 10 + 10 - kept
