"""What verification is made of: decisions imposed, distances, and each file's bar."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from analyzer.session import Session
from analyzer.verification import agreement, distance, forward
from analyzer.verification.decisions import decisions, expose, flips, impose
from analyzer.verification.result import NotRunError
from graph_rewrites.canonical.facts import KEY, write_stamp
from tests.analyzer.small_models import cnn


def test_decisions_are_imposed_and_counted() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[N] x) => (float[N] y, bool[N] given) {
            zero = Constant<value_float=0.0>()
            on = Greater(x, zero)
            given = Less(x, zero)
            y = Where(on, x, zero)
        }"""
    )
    assert decisions(model) == ("on",)
    x = np.float32([-1, 2, 3])
    assert Session(expose(model, ["on"])).run({"x": x})["on"].tolist() == [False, True, True]
    made = {"on": np.array([True, True, False])}
    outputs = Session(impose(model, made)).run({"x": x, **made})
    assert outputs["y"].tolist() == [-1, 2, 0]
    assert flips(made, outputs) == 2
    assert [o.name for o in model.graph.output] == ["y", "given"]


@pytest.mark.parametrize(
    ("ours", "theirs", "largest", "norm"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0, 0.0),
        ([3.0, 4.4], [3.0, 4.0], 0.1, 0.08),
        ([0.0, 0.0], [0.0, 0.0], 0.0, 0.0),
        ([1.0, 0.0], [0.0, 0.0], np.inf, np.inf),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0, 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf, np.inf),
        ([1.0], [1.0, 1.0], np.inf, np.inf),
    ],
)
def test_distances(ours: list, theirs: list, largest: float, norm: float) -> None:
    pair = [np.array(ours)], [np.array(theirs)]
    assert distance.of_outputs(*pair) == pytest.approx(largest)
    assert distance.of_gradients(*pair) == pytest.approx(norm)
    other_type = [np.array(theirs, np.float32)]
    assert distance.of_outputs([np.array(theirs)], other_type) == np.inf


def quantised(zero_point: int) -> onnx.ModelProto:
    point = "int8" if zero_point < 0 else "uint8"
    return onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        g (float[N] x) => (float[N] y) <float s = {{0.1}}, {point} z = {{{abs(zero_point)}}}> {{
            q = QuantizeLinear(x, s, z)
            y = DequantizeLinear(q, s, z)
        }}"""
    )


@pytest.mark.parametrize(
    ("widened", "rewritten", "model", "bar"),
    [
        ([], [], None, 1e-6),
        ([], ["Dropout"], None, 1e-6),
        ([], ["FusedConv"], None, 1e-5),
        (["float16"], ["FusedConv"], None, 2e-3),
        ([], ["Dropout"], quantised(3), 0.0),
        ([], ["QLinearConv", "QLinearAdd"], quantised(3), 0.0),
        ([], ["QLinearConv"], quantised(-3), 2e-2),
        ([], ["FusedConv"], quantised(3), 2e-2),
    ],
)
def test_bars_follow_what_was_done(
    widened: list[str], rewritten: list[str], model: onnx.ModelProto | None, bar: float
) -> None:
    stamped = model or cnn()
    stamped.metadata_props.add(key=KEY, value=write_stamp("free", widened, rewritten))
    loaded = SimpleNamespace(model=stamped, quantised=model is not None)
    assert forward._bar(SimpleNamespace(loaded=loaded))[0] == bar


def test_one_image_at_a_time_has_no_neighbours() -> None:
    alone = SimpleNamespace(batch_reason="the file fixes the batch at 1")
    with pytest.raises(NotRunError, match="fixes the batch"):
        agreement.together(SimpleNamespace(loaded=alone, fixed_batch=1))
