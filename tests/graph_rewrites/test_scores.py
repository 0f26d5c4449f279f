"""The class scores are found behind everything that files put in front of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from graph_rewrites.canonical import open_canonical
from graph_rewrites.errors import ModelError, UnknownShapeError, UnknownTensorError
from graph_rewrites.graph import Graph
from graph_rewrites.scores import AmbiguousScoresWarning, Scores, find_scores
from graph_rewrites.stamps import PREFIX_KEY

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
QUANT = "<float s = {0.1}, uint8 z = {3}>"


def parse(signature: str, body: str, initializers: str = "") -> onnx.ModelProto:
    """A model from `signature`, e.g. "(float[N,3] x) => (float[N,3] y)", and lines of nodes."""
    return onnx.parser.parse_model(f"{HEAD} g {signature} {initializers} {{ {body} }}")


@dataclass(frozen=True)
class Case:
    """A model and what must be found in it: tensor, class axis, classes, peeled, link."""

    name: str
    signature: str
    body: str
    found: tuple[object, ...]
    initializers: str = ""


TO_10 = "(float[N,10] x) => (float[N,10] y)"
TO_U8 = "(float[N,10] x) => (uint8[N,10] y)"
CASES = (
    Case("plain", TO_10, "y = Neg(x)", ("y", 1, 10, (), "none")),
    Case("softmax", TO_10, "a = Neg(x) y = Softmax(a)", ("a", 1, 10, ("Softmax",), "softmax")),
    Case(
        "log-softmax",
        TO_10,
        "a = Neg(x) y = LogSoftmax<axis = 1>(a)",
        ("a", 1, 10, ("LogSoftmax",), "log_softmax"),
    ),
    Case(
        "log of a softmax",
        TO_10,
        "a = Neg(x) p = Softmax(a) y = Log(p)",
        ("a", 1, 10, ("Softmax", "Log"), "log_softmax"),
    ),
    Case(
        "a log alone is no link",
        TO_10,
        "a = Abs(x) y = Log(a)",
        ("y", 1, 10, (), "none"),
    ),
    Case(
        "multi-label sigmoid",
        TO_10,
        "a = Neg(x) y = Sigmoid(a)",
        ("a", 1, 10, ("Sigmoid",), "sigmoid"),
    ),
    Case(
        "one logit behind a sigmoid",
        "(float[N,1] x) => (float[N,1] y)",
        "a = Neg(x) y = Sigmoid(a)",
        ("a", 1, 2, ("Sigmoid",), "sigmoid"),
    ),
    Case(
        "regression",
        "(float[N,1] x) => (float[N,1] y)",
        "y = Neg(x)",
        ("y", 1, 1, (), "none"),
    ),
    Case(
        "one squeezed logit behind a sigmoid",
        "(float[N,1] x) => (float[N] y)",
        "a = Neg(x) b = Squeeze(a, one) y = Sigmoid(b)",
        ("a", 1, 2, ("Squeeze", "Sigmoid"), "sigmoid"),
        "<int64[1] one = {1}>",
    ),
    Case(
        "one squeezed score",
        "(float[N,1] x) => (float[N] y)",
        "a = Neg(x) y = Squeeze(a, one)",
        ("y", None, 1, (), "none"),
        "<int64[1] one = {1}>",
    ),
    Case(
        "no batch",
        "(float[10] x) => (float[10] y)",
        "a = Neg(x) y = Softmax(a)",
        ("a", 0, 10, ("Softmax",), "softmax"),
    ),
    Case(
        "channels last",
        "(float[N,1,1,10] x) => (float[N,1,1,10] y)",
        "a = Neg(x) y = Softmax(a)",
        ("a", 3, 10, ("Softmax",), "softmax"),
    ),
    Case(
        "channels first",
        "(float[N,10,1,1] x) => (float[N,10,1,1] y)",
        "a = Neg(x) y = Softmax<axis = -3>(a)",
        ("a", 1, 10, ("Softmax",), "softmax"),
    ),
    Case(
        "a softmax over another axis is no link",
        "(float[N,10,1,1] x) => (float[N,10,1,1] y)",
        "a = Neg(x) y = Softmax(a)",
        ("y", 1, 10, (), "none"),
    ),
    Case(
        "reshaped on both sides",
        "(float[N,10,1,1] x) => (float[N,10] y)",
        "a = Neg(x) b = Transpose<perm = [0, 2, 3, 1]>(a) c = Flatten(b) d = Softmax(c) "
        "e = Unsqueeze(d, last) f = Squeeze(e, last) y = Identity(f)",
        (
            "a",
            1,
            10,
            ("Transpose", "Flatten", "Softmax", "Unsqueeze", "Squeeze", "Identity"),
            "softmax",
        ),
        "<int64[1] last = {2}>",
    ),
    Case(
        "as the opset converter writes an old softmax",
        "(float[N,10,1,1] x) => (float[N,10,1,1] y)",
        "a = Neg(x) s = Shape(a) b = Flatten<axis = 1>(a) c = Softmax<axis = -1>(b) "
        "y = Reshape(c, s)",
        ("a", 1, 10, ("Flatten", "Softmax", "Reshape"), "softmax"),
    ),
    Case(
        "a flattened grid of boxes is not one score per class",
        "(float[N,5,4] x) => (float[N,20] y)",
        "a = Neg(x) b = Flatten(a) y = Softmax(b)",
        ("b", 1, 20, ("Softmax",), "softmax"),
    ),
    Case(
        "half precision outside",
        "(float[N,10] x) => (float16[N,10] y)",
        "a = Neg(x) p = Softmax(a) y = Cast<to = 10>(p)",
        ("a", 1, 10, ("Softmax", "Cast"), "softmax"),
    ),
    Case(
        "quantised probabilities",
        TO_U8,
        "a = Neg(x) p = Softmax(a) y = QuantizeLinear(p, s, z)",
        ("a", 1, 10, ("Softmax", "QuantizeLinear"), "softmax"),
        QUANT,
    ),
    Case(
        "quantised and dequantised probabilities",
        TO_10,
        "a = Neg(x) p = Softmax(a) q = QuantizeLinear(p, s, z) r = Reshape(q, shape) "
        "y = DequantizeLinear(r, s, z)",
        ("a", 1, 10, ("Softmax", "QuantizeLinear", "Reshape", "DequantizeLinear"), "softmax"),
        "<float s = {0.1}, uint8 z = {3}, int64[2] shape = {0, 10}>",
    ),
    Case(
        "quantised logits in front of a softmax",
        TO_U8,
        "a = Neg(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) b = Identity(d) "
        "p = Softmax(b) y = QuantizeLinear(p, s, z)",
        ("d", 1, 10, ("Identity", "Softmax", "QuantizeLinear"), "softmax"),
        QUANT,
    ),
    Case(
        "quantised logits, dequantised",
        TO_10,
        "a = Neg(x) q = QuantizeLinear(a, s, z) y = DequantizeLinear(q, s, z)",
        ("y", 1, 10, (), "none"),
        QUANT,
    ),
    Case(
        "quantised logits at the end of the file",
        TO_U8,
        "a = Neg(x) q = QuantizeLinear(a, s, z) y = Identity(q)",
        ("y", 1, 10, (), "none"),
        QUANT,
    ),
    Case(
        "a sigmoid inside the network is no link",
        TO_10,
        "p = Sigmoid(x) y = Mul(p, x)",
        ("y", 1, 10, (), "none"),
    ),
    Case(
        "a label output comes first",
        "(float[N,10] x) => (int64[N] label, float[N,10] y)",
        "a = Neg(x) y = Softmax(a) label = ArgMax<axis = 1, keepdims = 0>(y)",
        ("a", 1, 10, ("Softmax",), "softmax"),
    ),
    Case(
        "feature maps come first",
        "(float[N,10,4,4] x) => (float[N,10,4,4] maps, float[N,10,1,1] y)",
        "maps = Neg(x) y = GlobalAveragePool(maps)",
        ("y", 1, 10, (), "none"),
    ),
    Case(
        "a float output goes before a quantised one",
        "(float[N,10] x) => (uint8[N,10] q, float[N,10] y)",
        "y = Neg(x) q = QuantizeLinear(y, s, z)",
        ("y", 1, 10, (), "none"),
        QUANT,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore::graph_rewrites.scores.AmbiguousScoresWarning")
def test_found(case: Case) -> None:
    model = parse(case.signature, case.body, case.initializers)
    onnx.checker.check_model(model, full_check=True)
    found = find_scores(Graph(model))
    tensor, axis, classes, peeled, link = case.found
    assert found == Scores(str(tensor), axis, classes, peeled, found.output, link)  # type: ignore[arg-type]
    assert found.output == "y"


TWO = parse(
    "(float[N,10] x) => (float[N,10] first, float[N,10] second)",
    "a = Neg(x) first = Softmax(a) second = Abs(x)",
)


def test_several_candidates_warn_and_name_the_others() -> None:
    with pytest.warns(AmbiguousScoresWarning, match="'first' is explained, not 'second'"):
        assert find_scores(Graph(TWO)).tensor == "a"


def test_the_named_output_is_taken_without_a_warning() -> None:
    found = find_scores(Graph(TWO), output="second")
    assert (found.tensor, found.output, found.link) == ("second", "second", "none")


def test_logits_beside_their_own_softmax_are_no_ambiguity() -> None:
    model = parse(
        "(float[N,10] x) => (float[N,10] p, float[N,10] logits)",
        "logits = Neg(x) p = Softmax(logits)",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_scores(Graph(model)).tensor == "logits"


def test_what_earlier_calls_added_is_overlooked() -> None:
    model = parse(
        "(float[N,10] x, float[N,10] ct) => (float[N,10] grad, float[N,10] y)",
        "a = Neg(x) y = Softmax(a) grad = Neg(ct)",
    )
    model.graph.node[2].metadata_props.add(key=PREFIX_KEY, value="grad")
    graph = Graph(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_scores(graph).tensor == "a"
    with pytest.raises(UnknownTensorError, match="no output 'grad'"):
        find_scores(graph, output="grad")


@pytest.mark.parametrize(
    ("signature", "body", "error", "message"),
    [
        (
            "(float[N,3,8,8] x) => (float[N,3,8,8] y)",
            "y = Neg(x)",
            ModelError,
            r"'y' \(N, 3, 8, 8\) does not hold one score per class; .*`of`",
        ),
        (
            "(float[N,C] x) => (float[N,C] y)",
            "y = Neg(x)",
            UnknownShapeError,
            "number of classes",
        ),
        (
            "(float[N,C] x) => (int64[N] y)",
            "y = ArgMax<axis = 1, keepdims = 0>(x)",
            ModelError,
            "'y' holds integers",
        ),
        (
            "(float[N,3,8,8] x) => (float[N,3,8,8] y, int64[N,8,8] z)",
            "y = Neg(x) z = ArgMax<axis = 1, keepdims = 0>(x)",
            ModelError,
            r"no output holds one score per class \(outputs: 'y' \(N, 3, 8, 8\), 'z' \(N, 8, 8\)",
        ),
    ],
)
def test_no_scores(signature: str, body: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        find_scores(Graph(parse(signature, body)))
    assert "\n" not in str(caught.value)


ASSETS = {
    "mobilenet_v2_imagenet_qdq": (
        "MobilenetV2/Logits/Squeeze1_dequant",
        1,
        1001,
        ("Softmax", "QuantizeLinear"),
        "softmax",
    ),
    "mobilenet_v2_imagenet_f32": (
        "MobilenetV2/Logits/Conv2d_1c_1x1/BiasAdd;MobilenetV2/Logits/Conv2d_1c_1x1/Conv2D;"
        "MobilenetV2/Logits/Conv2d_1c_1x1/biases1_prequant",
        1,
        1001,
        ("Reshape", "Softmax", "QuantizeLinear"),
        "softmax",
    ),
    "mnist_cntk": ("Plus214_Output_0", 1, 10, (), "none"),
    "cifar10_pytorch": ("modelOutput", 1, 10, (), "none"),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", ASSETS)
def test_assets(name: str, shared: Path) -> None:
    found = find_scores(open_canonical(onnx.load(shared / "models" / f"{name}.onnx")))
    assert (found.tensor, found.class_axis, found.classes, found.peeled, found.link) == ASSETS[name]


@pytest.mark.shared
def test_half_precision_squeezenet(shared: Path) -> None:
    graph = open_canonical(onnx.load(shared / "models" / "squeezenet1.1_imagenet_fp16.onnx"))
    found = find_scores(graph)
    assert (found.tensor, found.class_axis, found.classes) == ("pool10_1", 1, 1000)
    assert found.link == "softmax" and "Softmax" in found.peeled
    assert found.output == "softmaxout_1"
