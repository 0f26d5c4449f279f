"""Batch, layer and local response normalisation."""

import numpy as np

from .harness import Case, Fed

SCALE = np.array([0.5, -1.0, 2.0], np.float32)
BIAS = np.array([0.1, 0.2, -0.3], np.float32)
MEAN = np.array([-0.2, 0.0, 0.4], np.float32)
VARIANCE = np.array([0.3, 1.0, 4.0], np.float32)


def ramp(*shape):
    return np.linspace(-1.0, 2.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)


BATCH = [
    *(
        Case("BatchNormalization", [shape, SCALE, BIAS, MEAN, VARIANCE], attrs, "linear", note=note)
        for shape, attrs, note in [
            (("N", 3), {}, "no pixels"),
            (("N", 3, "L"), {}, "1-D"),
            (("N", 3, 4, 5), {}, "2-D"),
            (("N", 3, "H", "W"), {}, "2-D, free pixels"),
            (("N", 3, 2, 3, 2), {}, "3-D"),
            (("N", 3, 4), {"epsilon": 0.5}, "large epsilon"),
            (("N", 3, 4), {"momentum": 0.1, "training_mode": 0}, "momentum"),
        ]
    ),
    Case(
        "BatchNormalization",
        [("N", 3, 4), *(Fed(value) for value in (SCALE, BIAS, MEAN, VARIANCE))],
        kind="linear",
        note="statistics that are computed",
        wrt=(0,),
    ),
]

LAYER = [
    *(
        Case("LayerNormalization", [("N", 3, 4), scale, bias], attrs, note=note)
        for scale, bias, attrs, note in [
            (ramp(4), ramp(4), {}, "last axis"),
            (ramp(4), ramp(4), {"axis": -1}, "axis -1"),
            (ramp(3, 4), ramp(3, 4), {"axis": 1}, "two axes"),
            (ramp(3, 4), ramp(4), {"axis": -2}, "axis -2, bias of lower rank"),
            (ramp(4), ramp(4), {"epsilon": 0.5}, "large epsilon"),
        ]
    ),
    Case("LayerNormalization", [("N", 3, 4), ramp(4)], note="no bias"),
    Case(
        "LayerNormalization", [("N", "H", "W", 3), SCALE, BIAS], note="free pixels, channels last"
    ),
]

# As many images as channels: only then does onnx's evaluator, which mixes them up, get it right.
# A free batch and even windows, which the runtime refuses to run forward, are in test_corners.py.
LOCAL = [
    Case("LRN", [shape], attrs, note=note)
    for shape, attrs, note in [
        ((6, 6, 2, 3), {"size": 3}, "size 3"),
        ((6, 6, 2, 3), {"size": 1, "alpha": 0.5}, "size 1"),
        ((6, 6, 2, 3), {"size": 5, "alpha": 0.7, "beta": 0.6, "bias": 2.0}, "size 5"),
        ((3, 3, 2, 3), {"size": 7, "alpha": 0.7}, "wider than the channels"),
        ((4, 4, "H", "W"), {"size": 3, "alpha": 0.7}, "free pixels"),
    ]
]

CASES = [*BATCH, *LAYER, *LOCAL]
