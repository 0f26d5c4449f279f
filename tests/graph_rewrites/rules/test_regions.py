"""Detectors find nothing on some pictures: then there are no boxes, and no gradient."""

import pytest

from graph_rewrites.testing import check_adjoint

from .harness import onnxruntime

MODEL = """<ir_version: 10, opset_import: ["": 21]>
    regions (float[2, 3, 6, 7] x, float[R, {columns}] rois{image}) => (float[R, 3, 2, 3] y) {{
        y = {operator}
    }}"""
ALIGN = (
    'RoiAlign<output_height=2, output_width=3, mode="{mode}", sampling_ratio={ratio}>'
    "(x, rois, image)"
)


@pytest.mark.parametrize("boxes", [0, 1])
@pytest.mark.parametrize(
    "operator",
    [
        *(ALIGN.format(mode=mode, ratio=ratio) for mode in ("avg", "max") for ratio in (0, 2)),
        "MaxRoiPool<pooled_shape=[2, 3]>(x, rois)",
    ],
)
def test_pictures_without_boxes(operator: str, boxes: int) -> None:
    aligned = operator.startswith("RoiAlign")
    model = MODEL.format(
        operator=operator, columns=4 if aligned else 5, image=", int64[R] image" * aligned
    )
    error = check_adjoint(
        model,
        step=0.01,
        wrt=(0,),
        sizes={"R": boxes},
        feeds={},
        domain={"rois": lambda rng, shape: rng.uniform(0.0, 1.9, shape)},
        runtime=onnxruntime,
        bar=1e-3,
    )
    assert error == 0.0 or boxes
