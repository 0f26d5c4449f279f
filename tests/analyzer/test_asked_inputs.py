"""Networks that call their own tensors `target`, `mask`, `box` or `reference`."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import analyzer
from analyzer import Box, Mask, Similarity
from analyzer.verification import verify

PICTURES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
OTHER = np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8)
NAMES = ("image", "scores", "features")


def network(*names: str) -> onnx.ModelProto:
    """A segmentation whose input, output and features have these names."""
    image, scores, features = names
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,3,8,8] {image}) '
        f"=> (float[N,4,8,8] {scores}) {{ conv = Conv<pads=[1,1,1,1]>({image}, w) "
        f"{features} = Relu(conv) {scores} = Conv({features}, v) }}"
    )
    rng = np.random.default_rng(1)
    for name, shape in {"w": (6, 3, 3, 3), "v": (4, 6, 1, 1)}.items():
        value = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize("place", range(3), ids=NAMES)
@pytest.mark.parametrize("target", [Mask(1, np.eye(8)), Box(5, 1), Similarity(OTHER)])
@pytest.mark.parametrize("taken", ["target", "mask", "box", "reference"])
def test_a_network_may_use_the_names_of_our_inputs(place, target, taken):
    plain = analyzer.load(network(*NAMES), preprocess="raw")
    names = [taken if place == i else name for i, name in enumerate(NAMES)]
    own = analyzer.load(network(*names), preprocess="raw")
    expected, found = (
        a.explain(PICTURES[:1], method="gradient", target=target, output=output)
        for a, output in ((plain, "scores"), (own, names[1]))
    )
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.outputs[names[1]], expected.outputs["scores"])


def test_such_a_network_is_verified():
    assert verify(analyzer.load(network("target", "mask", "box"), preprocess="raw")).passed
