"""RoiAlign: linear, or of weighted maxima. MaxRoiPool: piecewise linear."""

import itertools

import numpy as np

from graph_rewrites.testing import distinct

from .harness import Case, Fed

BOXES = np.array(
    [[0.3, 1.2, 5.1, 6.4], [-1.1, 2.3, 3.3, 9.7], [2.0, 2.0, 2.4, 2.2], [1.0, 0.0, 9.0, 5.0]],
    np.float32,
)
IMAGES = np.array([0, 2, 1, 2])
SQUARE = {"output_height": 2, "output_width": 3}


def align(note, *, kind="linear", shape=(3, 2, 6, 7), boxes=BOXES, images=IMAGES, **attrs):
    return Case("RoiAlign", [shape, boxes, images], attrs, kind, note=note, wrt=(0,))


ALIGNED = [
    *(
        align(
            f"{mode}, {at}, {ratio} samples",
            kind="smooth" if mode == "max" else "linear",
            mode=mode,
            coordinate_transformation_mode=at,
            sampling_ratio=ratio,
            **SQUARE,
        )
        for mode, at, ratio in itertools.product(
            ("avg", "max"), ("half_pixel", "output_half_pixel"), (0, 1, 2, 3)
        )
    ),
    align("scaled", spatial_scale=0.5, sampling_ratio=2, **SQUARE),
    align("scaled, as many samples as it takes", spatial_scale=1.7, **SQUARE),
    align("attributes omitted"),
    align("free pixels", shape=(3, 2, "H", "W"), sampling_ratio=2, **SQUARE),
    align("run-time boxes", boxes=Fed(BOXES), images=Fed(IMAGES, dtype=np.int64), **SQUARE),
    align("batch of one", shape=("N", 2, "H", "W"), images=np.zeros(4, np.int64), **SQUARE),
]
ROIS = np.concatenate([IMAGES[:, None].astype(np.float32), BOXES], axis=1)


def pooled(note, rois=ROIS, shape=(3, 2, 6, 7), **attrs):
    attrs = {"pooled_shape": [2, 3], **attrs}
    return Case("MaxRoiPool", [shape, rois], attrs, "piecewise", distinct, note, (0,))


POOLED = [
    pooled("plain"),
    pooled("scaled", spatial_scale=0.7),
    pooled("shrunk", spatial_scale=0.2),
    pooled("run-time boxes", Fed(ROIS)),
    pooled("beyond the picture", np.array([[1, 20, 20, 30, 30], [0, 0, 0, 3, 3]], np.float32)),
    pooled("free pixels", shape=(3, 2, "H", "W"), pooled_shape=[3, 2]),
]
CASES = [*ALIGNED, *POOLED]
