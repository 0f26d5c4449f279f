"""An output whose rows belong to no image is refused, with the scores to name instead."""

from __future__ import annotations

import onnx
import pytest

import graph_rewrites as gr

from .place_models import chosen_boxes
from .test_scores import TO_10, parse


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("of", [None, "boxes", "scores"])
def test_chosen_boxes_are_refused(batch: str, of: str | None) -> None:
    with pytest.raises(gr.ModelError, match="as 'logits'") as caught:
        gr.scores(chosen_boxes(batch), of)
    assert "\n" not in str(caught.value)
    with pytest.raises(gr.ModelError, match="as 'logits'"):
        gr.scores(chosen_boxes(batch), of, "box")


def test_the_scores_that_the_error_names_can_be_explained() -> None:
    found = gr.scores(chosen_boxes("N"), "logits")
    assert (found.class_axis, found.classes, found.position_axes) == (1, 5, (2,))


def test_an_embedding_of_chosen_boxes_is_refused() -> None:
    with pytest.raises(gr.ModelError, match="does not keep the images apart"):
        gr.scores(chosen_boxes("N"), "boxes", "similarity")


def test_rows_of_all_images_are_refused() -> None:
    model = parse(
        "(float[N,6,2] x) => (float[M,2] y)", "y = Reshape(x, s)", "<int64[2] s = {-1, 2}>"
    )
    with pytest.raises(gr.ModelError, match=r"output 'y' \(M, 2\) does not keep the images apart"):
        gr.scores(model)


@pytest.mark.parametrize("symbol", ["N", "B", ""])
def test_an_output_may_call_the_batch_as_it_likes(symbol: str) -> None:
    model = parse(TO_10, "y = Neg(x)")
    batch = model.graph.output[0].type.tensor_type.shape.dim[0]
    batch.Clear()
    if symbol:
        batch.dim_param = symbol
    onnx.checker.check_model(model)
    assert gr.scores(model).tensor == "y"
