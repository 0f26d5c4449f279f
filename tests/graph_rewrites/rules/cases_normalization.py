"""Normalisations over the batch, instances, layers, vectors and neighbours."""

import numpy as np

from graph_rewrites.testing import between, normal

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
        note="statistics that are computed",
    ),
    *(
        Case("BatchNormalization", [shape, (3,), (3,), MEAN, VARIANCE], kind="linear", note=note)
        for shape, note in [
            (("N", 3), "computed scale, no pixels"),
            (("N", 3, "H", "W"), "computed scale, free pixels"),
        ]
    ),
    Case("BatchNormalization", [("N", 3, 4), SCALE, (3,), MEAN, VARIANCE], note="computed bias"),
]

INSTANCE = [
    Case("InstanceNormalization", [shape, SCALE, BIAS], attrs, note=note)
    for shape, attrs, note in [
        (("N", 3, 5), {}, "1-D"),
        (("N", 3, 3, 4), {}, "2-D"),
        (("N", 3, "H", "W"), {}, "2-D, free pixels"),
        (("N", 3, 2, 3, 2), {}, "3-D"),
        (("N", 3, 5), {"epsilon": 0.5}, "large epsilon"),
    ]
] + [
    Case("InstanceNormalization", [("N", 3, 3, 4), (3,), (3,)], note="computed scale and bias"),
    Case("InstanceNormalization", [("N", 3, "H", "W"), (3,), BIAS], note="computed scale"),
    Case("InstanceNormalization", [("N", 3, 4), SCALE, (3,)], note="computed bias"),
]

# onnx's evaluator forgets the modulus where p = 1: positive numbers here, others in test_norms.py
VECTORS = [
    Case("LpNormalization", [shape], attrs, domain=domain, note=note)
    for p, domain in [({}, normal), ({"p": 2}, normal), ({"p": 1}, between(0.3, 2.0))]
    for shape, more, note in [
        (("N", 3, 4), {}, ""),
        (("N", 3, 4), {"axis": 1}, ""),
        (("N", 3, 4), {"axis": -2}, ""),
        (("N", 3, "H", "W"), {"axis": 1}, f"free pixels {p}"),
    ]
    for attrs in [{**p, **more}]
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
    *(
        Case("LayerNormalization", [("N", 3, 4), *given], attrs, note=note)
        for given, attrs, note in [
            ([(4,), (4,)], {}, "computed scale and bias"),
            ([(4,)], {}, "computed scale, no bias"),
            ([ramp(4), (4,)], {}, "computed bias"),
            ([(3, 4), (4,)], {"axis": 1}, "computed, two axes, bias of lower rank"),
            ([(3, 1), (1,)], {"axis": 1}, "computed, broadcast"),
        ]
    ),
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

CASES = [*BATCH, *INSTANCE, *LAYER, *VECTORS, *LOCAL]
