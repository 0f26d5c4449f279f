"""verify() passes sound models, and finds every kind of error planted in one."""

import json
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import analyzer
import graph_rewrites as gr
from analyzer.errors import MissingProviderError, ModelRejectedError, UsageError
from analyzer.session import Session
from analyzer.verification import Verification, agreement, sharp, verify
from graph_rewrites import lowering
from graph_rewrites.lowering.pattern import pattern
from tests.analyzer.small_models import bytes_in, cnn, mixing
from tests.graph_rewrites.place_models import detector, segmentation

NAMES = [
    "outputs/canonical",
    "outputs/explanation",
    "gradient/input",
    "gradient/layer",
    "optimised",
    "lowered",
    "batch",
    "devices",
]


def verdicts(found: Verification) -> dict[str, str]:
    return {check.name: check.verdict for check in found.checks}


def failures(found: Verification) -> set[str]:
    return {name for name, verdict in verdicts(found).items() if verdict == "failed"}


def note(found: Verification, name: str) -> str:
    return next(check.note for check in found.checks if check.name == name)


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on every machine."""

    def refuse(device: str) -> None:
        raise MissingProviderError(f"device {device!r}: no library; install it")

    monkeypatch.setattr(agreement, "settle", refuse)


# -- sound models --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "picture"),
    [
        (cnn(), (3, 16, 16)),
        (cnn(batch="N", flatten=(-1, 12)), (3, 16, 16)),
        (cnn(batch=3, flatten=(3, 12)), (3, 16, 16)),
        (cnn(activation="Sigmoid"), (3, 16, 16)),
        (cnn(size=("H", "W"), batch="N", flatten=(-1, 12)), (3, 64, 64)),
        (bytes_in(), (16, 16, 3)),
    ],
    ids=["fixed batch", "free batch", "batch of three", "smooth", "open size", "bytes"],
)
def test_a_sound_model_passes(model: onnx.ModelProto, picture: tuple[int, ...]) -> None:
    found = verify(analyzer.load(model))
    assert [check.name for check in found.checks] == NAMES
    assert verdicts(found) == {**dict.fromkeys(NAMES, "ok"), "devices": "not run"}
    assert note(found, "devices") == "CUDA does not load: no library; install it"
    assert found.passed
    assert found.picture == picture
    assert found.layer == "a2"
    assert all(c.figure <= c.bar for c in found.checks if c.verdict == "ok")
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["passed"] is True


@pytest.mark.parametrize(
    ("model", "output"),
    [(segmentation(), None), (segmentation(), "out"), (detector(), "scores"), (cnn(), "a2")],
    ids=["segmentation", "named", "detector", "layer"],
)
def test_whatever_is_explained_is_verified(model: onnx.ModelProto, output: str | None) -> None:
    found = verify(analyzer.load(model), output=output, layer="0")
    assert not failures(found), found.as_dict()
    assert {"gradient/input", "gradient/layer", "optimised"} <= {
        c.name for c in found.checks if c.verdict == "ok"
    }


def test_a_model_without_a_layer_has_one_gradient() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[N,3,4,4] x) => (float[N,3] y) {
            c = Conv(x, w)
            r = Relu(c)
            f = Flatten(r)
            y = MatMul(f, v)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (5, 3, 4, 4), "v": (5, 3)}.items():
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    found = verify(analyzer.load(model))
    assert found.passed
    assert found.layer is None
    assert verdicts(found)["gradient/layer"] == "not run"


def behind_a_pool(side: int) -> onnx.ModelProto:
    model = cnn(size=("H", "W"), batch="N", flatten=(-1, 12))
    model.graph.node.insert(
        1, helper.make_node("AveragePool", ["c1"], ["pooled"], kernel_shape=[side, 1])
    )
    model.graph.node[2].input[0] = "pooled"
    return model


def test_an_open_size_is_as_small_as_the_model_runs_on() -> None:
    assert verify(analyzer.load(behind_a_pool(100)), directions=1).picture == (3, 128, 128)


# -- planted errors ------------------------------------------------------------------------------


def scaled_conv(op, node, cts):
    dx, *rest = gr.DEFAULT_RULES.get("Conv").fn(op, node, cts)
    return [op.Mul(dx, 1.0001), *rest]


def scaled_gemm(op, node, cts):
    da, *rest = gr.DEFAULT_RULES.get("Gemm").fn(op, node, cts)
    return [op.Mul(da, 1.0001), *rest]


def zero_pool(op, node, cts):
    return [op.Mul(node.input(0), 0.0)]


def cropped_pool(op, node, cts):
    (dx,) = gr.DEFAULT_RULES.get("GlobalAveragePool").fn(op, node, cts)
    return [op.Slice(dx, [0], [3], [3])]


def mixing_pool(op, node, cts):
    (ct,) = cts
    mean = op.ReduceMean(ct, [0], keepdims=1)  # of one image it is that image's own
    return gr.DEFAULT_RULES.get("GlobalAveragePool").fn(op, node, [op.Add(op.Sub(ct, ct), mean)])


GRADIENTS = {"gradient/input", "gradient/layer"}


@pytest.mark.parametrize(
    ("wrong", "found_by"),
    [
        ({"Conv": scaled_conv}, {"gradient/input"}),
        ({"Gemm": scaled_gemm}, GRADIENTS),
        ({"GlobalAveragePool": zero_pool}, GRADIENTS),
        ({"GlobalAveragePool": mixing_pool}, {"batch"}),
    ],
    ids=["one factor", "another factor", "zero", "images mixed"],
)
def test_a_wrong_rule_is_found(wrong: dict, found_by: set[str]) -> None:
    found = verify(analyzer.load(cnn()), rules=gr.DEFAULT_RULES.override(**wrong))
    assert failures(found) == found_by
    assert not found.passed
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_rule_of_a_wrong_shape_fails_and_stops_nothing() -> None:
    rules = gr.DEFAULT_RULES.override(GlobalAveragePool=cropped_pool)
    found = verify(analyzer.load(cnn()), rules=rules)
    assert failures(found) >= GRADIENTS
    assert [check.name for check in found.checks] == NAMES


def test_images_that_influence_each_other_are_found() -> None:
    found = verify(analyzer.load(mixing()))
    assert failures(found) == {"batch"}
    (check,) = [check for check in found.checks if check.name == "batch"]
    assert check.figure > 1e-3
    assert "together and apart differ" in check.note


@pytest.mark.parametrize(("batch", "verdict"), [(1, "not run"), (2, "failed")])
def test_a_fixed_batch_is_judged_where_it_has_neighbours(batch: int, verdict: str) -> None:
    found = verify(analyzer.load(mixing(batch)), directions=1)
    assert verdicts(found)["batch"] == verdict
    assert "the file fixes the batch" in note(found, "batch")


def test_a_changed_weight_is_found() -> None:
    loaded = analyzer.load(cnn())
    (weight,) = [tensor for tensor in loaded.model.graph.initializer if tensor.name == "w2"]
    changed = numpy_helper.to_array(weight) * np.float32(1.001)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    assert failures(verify(loaded)) == {"outputs/canonical", "outputs/explanation"}


@pytest.mark.parametrize("output", ["map/gradient", "map/grad_cam", "score/used"])
def test_an_optimiser_that_changes_numbers_is_found(
    monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    class Wrong(Session):
        def run(self, inputs, outputs=None):
            found = super().run(inputs, outputs)
            if self.settings["graph_optimization"] == "none":
                found[output] = found[output] * np.float32(1.001)
            return found

    monkeypatch.setattr(agreement, "Session", Wrong)
    assert failures(verify(analyzer.load(cnn()))) == {"optimised"}


def test_a_lowering_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @pattern("Where")
    def no_mask(op, node):
        return op.Mul(node.input(1), 1.0)

    monkeypatch.setattr(lowering, "PROVIDERS", {"portable": (), "cpu": (no_mask,)})
    assert failures(verify(analyzer.load(cnn()))) == {"lowered"}


def test_another_device_is_compared_where_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def on_cpu(model, device="cpu", optimization="all"):
        opened.append(device)
        return Session(model, "cpu", optimization)

    monkeypatch.setattr(agreement, "settle", lambda _: None)
    monkeypatch.setattr(agreement, "Session", on_cpu)
    assert verdicts(verify(analyzer.load(cnn())))["devices"] == "ok"
    assert opened[-1] == "cuda"


def test_what_cannot_be_verified_is_refused() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        verify(analyzer.load(cnn()), layer="nowhere")
    with pytest.raises(ModelRejectedError, match="does not run on any picture"):
        verify(analyzer.load(behind_a_pool(500)))


# -- the float64 check ---------------------------------------------------------------------------


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """What the directions answer, in their order."""
    answers: list = []

    def answer(*_: object, **__: object) -> float:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(sharp.gr.testing, "directional_error", answer)
    yield answers


def input_check(directions: int = 2, budget_s: float = 60.0):
    found = verify(analyzer.load(cnn()), directions=directions, budget_s=budget_s)
    return found.checks[2]


def test_a_point_beside_a_kink_is_passed_over(errors: list) -> None:
    errors += [1e-3, 1e-9, 2e-9] + [1e-9] * 2
    check = input_check()
    assert (check.verdict, check.figure) == ("ok", 2e-9)
    assert check.note == "2 directions; 1 passed over, beside a kink"


@pytest.mark.parametrize("first", [[], [1e-9]])
def test_three_points_off_are_an_error(errors: list, first: list[float]) -> None:
    errors += [*first, 1e-3, float("nan"), 2e-6] + [1e-9] * 2
    check = input_check()
    assert check.verdict == "failed"
    assert check.figure == 2e-6


def test_time_runs_out_after_one_direction(errors: list) -> None:
    errors += [1e-3, 1e-9] + [1e-9] * 9
    check = input_check(directions=4, budget_s=0.0)
    assert check.verdict == "ok"
    assert check.note.startswith("1 direction of 4, for want of time")


def test_what_the_evaluator_does_not_know_is_not_judged(errors: list) -> None:
    errors += [NotImplementedError("no Wobble"), ValueError("shapes differ")]
    found = verify(analyzer.load(cnn()))
    assert verdicts(found)["gradient/input"] == "not run"
    assert "no Wobble" in note(found, "gradient/input")
    assert verdicts(found)["gradient/layer"] == "failed"
    assert "shapes differ" in note(found, "gradient/layer")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_said_first(value: float) -> None:
    model = cnn()
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "b3"]
    bias.CopyFrom(numpy_helper.from_array(np.full(5, value, np.float32), "b3"))
    found = verify(analyzer.load(model), directions=1)
    for check in found.checks[:2]:
        assert check.verdict == "not run"
        assert check.note.startswith("the file's own outputs are not finite: 'prob'")
    assert "ok" not in verdicts(found).values()


def test_progress_is_told() -> None:
    told: list[str] = []
    verify(analyzer.load(cnn()), directions=2, progress=told.append)
    assert [line for line in told if line.startswith("x: ")] == [
        "x: 1 of 2 directions, 0 s",
        "x: 2 of 2 directions, 0 s",
    ]


# -- real files ----------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "bar"),
    [
        ("mnist_cntk", 1e-6),
        ("cifar10_pytorch", 1e-6),
        ("squeezenet1.1_imagenet_fp16", 2e-3),
        ("mobilenet_v2_imagenet_qdq", 0.0),
        ("mobilenet_v2_imagenet_f32", 0.0),
    ],
)
def test_real_files_are_right(shared, file: str, bar: float) -> None:
    found = verify(analyzer.load(shared / "models" / f"{file}.onnx"), directions=1)
    assert verdicts(found) == {**dict.fromkeys(NAMES, "ok"), "devices": "not run"}
    assert {check.bar for check in found.checks[:2]} == {bar}
