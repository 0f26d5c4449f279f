"""Where the time goes: every node in its phase, and what is off the fast path by name."""

import numpy as np
import pytest

import analyzer
from analyzer.profile import PHASES, profile_of
from analyzer.session import NodeTime, Session
from tests.graph_rewrites.test_quantized import small_cnn

CPU = "CPUExecutionProvider"


def test_nodes_are_sorted_into_phases():
    nodes = [
        NodeTime("conv1", "Conv", CPU, 0.004),
        NodeTime("bwd/gradient/conv1/ConvTranspose", "ConvTranspose", CPU, 0.003),
        NodeTime("bwd/gradient/relu/Mul", "Mul", CPU, 0.001),
        NodeTime("bwd/gradient/relu2/Mul", "Mul", CPU, 0.001),
        NodeTime("heads/saliency/Abs", "Abs", CPU, 0.0005),
        NodeTime("ReorderInput_3", "ReorderInput", CPU, 0.0002),
    ]
    found = profile_of(nodes, 0.01, {"decode": 0.002}, "cpu")
    expected = {"decode": 2, "forward": 4, "backward": 5, "maps": 0.5, "layout": 0.2}
    assert {phase: round(1e3 * s, 6) for phase, s in found.seconds.items()} == expected
    assert [(o.operator, o.count) for o in found.operators[:3]] == [
        ("Conv", 1),
        ("ConvTranspose", 1),
        ("Mul", 2),
    ]
    (slow,) = found.off_the_fast_path
    assert slow.operator == "ConvTranspose" and "stride above 1" in slow.why


def test_on_cuda_what_runs_on_the_cpu_is_off_the_fast_path():
    nodes = [
        NodeTime("a", "Conv", "CUDAExecutionProvider", 0.004),
        NodeTime("b", "LpPool", CPU, 0.001),
    ]
    (slow,) = profile_of(nodes, 0.01, {}, "cuda").off_the_fast_path
    assert slow.operator == "LpPool" and "copied" in slow.why


@pytest.mark.parametrize("method", ["gradient", ("grad_cam", "guided_backprop")])
def test_a_real_profile_adds_up(method):
    loaded = analyzer.load(small_cnn(), preprocess="tf")
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    found = loaded.profile(image, method, target=3)
    assert list(found.seconds) == [p for p in PHASES if p in found.seconds]
    assert {"decode", "forward", "backward", "maps"} <= set(found.seconds)
    inside = sum(found.seconds.values()) - found.seconds["decode"]
    assert 0 < inside < 2 * found.run
    lines = found.lines()
    assert lines[0].startswith("profile of one picture on the cpu")
    assert any(line.startswith("  backward") for line in lines)
    assert found.as_dict()["operators"][0]["phase"] in PHASES


def test_a_session_that_does_not_measure_says_so():
    with pytest.raises(ValueError, match="profile=True"):
        Session(small_cnn()).node_times()
