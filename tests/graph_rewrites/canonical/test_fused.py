"""Files that the runtime's optimiser wrote: the fused operators become standard ones again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import graph_rewrites as gr
from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.errors import UnsupportedOperatorError
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(4).bit_generator.state


def normal(*shape: int, rng: np.random.Generator = RNG) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def one_node(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    attributes: dict[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    domain: str = MICROSOFT,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one node, all of whose inputs are graph inputs, and what to feed it."""
    feeds = {f"x{i}": value for i, value in enumerate(inputs) if value is not None}
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    node = helper.make_node(
        op_type, names, list(outputs), "fused", domain=domain, **(attributes or {})
    )

    def declared(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
        elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        return helper.make_tensor_value_info(name, elem_type, value.shape)

    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs if o]
    graph = helper.make_graph([node], "g", [declared(*item) for item in feeds.items()], results)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), feeds


def raw(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of a file that the checker does not know the operators of."""
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, feeds), strict=True))


def in_runtime_domain(text: str, **initializers: np.ndarray) -> onnx.ModelProto:
    model = graph_of(text, **initializers)
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def declare(model: onnx.ModelProto, results: dict[str, np.ndarray]) -> None:
    """Give the outputs of a model the shapes of its results, for the checker."""
    for value in model.graph.output:
        elem_type, shape = TensorProto.FLOAT, results[value.name].shape
        value.CopyFrom(helper.make_tensor_value_info(value.name, elem_type, shape))


def assert_same(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Standard operators only, and the same numbers."""
    expected = raw(model, feeds)
    declare(model, expected)
    canonical = canonicalize(model, batch="keep")
    assert {node.domain for node in canonical.graph.node} == {""}
    got = run(canonical, feeds)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5 * np.abs(value).max())
    return canonical


X, W, B = normal(2, 3, 7, 6), normal(4, 3, 3, 3), normal(4)
ACTIVATIONS = {
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
    "LeakyRelu": [0.3],
    "Clip": [-0.5, 2.5],
    "HardSigmoid": [0.15, 0.4],
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_fused_conv(activation: str, bias: bool, residual: bool) -> None:
    attributes: dict[str, Any] = {"activation": activation, "strides": [2, 1]}
    if ACTIVATIONS[activation]:
        attributes["activation_params"] = ACTIVATIONS[activation]
    z = normal(2, 4, 3, 4) if residual else None
    model, feeds = one_node("FusedConv", [X, W, B if bias else None, z], attributes)
    canonical = assert_same(model, feeds)
    expected = ["Conv", *(["Add"] if residual else []), activation]
    assert [node.op_type for node in canonical.graph.node] == expected
    assert canonical_facts(canonical)["rewritten"] == ["FusedConv"]


def test_fused_conv_with_automatic_padding_and_groups() -> None:
    attributes = {"activation": "Relu", "auto_pad": "SAME_UPPER", "strides": [2, 2], "group": 2}
    model, feeds = one_node("FusedConv", [normal(1, 4, 7, 6), normal(6, 2, 3, 3)], attributes)
    canonical = assert_same(model, feeds)
    assert "auto_pad" not in [a.name for a in canonical.graph.node[0].attribute]


def test_an_unknown_activation_is_refused_by_name() -> None:
    model, _ = one_node("FusedConv", [X, W], {"activation": "Cosine"})
    with pytest.raises(UnsupportedOperatorError, match=r"FusedConv .*'Cosine'"):
        canonicalize(model)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.3}), ("Elu", {"activation_alpha": 0.0})],
)
@pytest.mark.parametrize("c", [(5,), (2, 1), None])
def test_fused_gemm(activation: str, parameters: dict[str, float], c: tuple[int, ...]) -> None:
    attributes = {"activation": activation, "alpha": 0.5, "beta": 2.0, "transB": 1, **parameters}
    inputs = [normal(2, 4), normal(5, 4), None if c is None else normal(*c)]
    assert_same(*one_node("FusedGemm", inputs, attributes))


@pytest.mark.parametrize("flags", range(16))
@pytest.mark.parametrize("rank", [3, 4])
def test_fused_matmul(flags: int, rank: int) -> None:
    keys = ("transA", "transBatchA", "transB", "transBatchB")
    attributes = {key: flags >> bit & 1 for bit, key in enumerate(keys)}

    def stored(factor: str, rows: int, columns: int) -> np.ndarray:
        """A factor as the flags say that it is stored: the rows first, or the columns, or last."""
        batch = [2, 3][: rank - 2]
        inner, last = (columns, rows) if attributes[f"trans{factor}"] else (rows, columns)
        if attributes[f"transBatch{factor}"]:
            return normal(inner, *batch, last)
        return normal(*batch, inner, last)

    a, b = stored("A", 4, 5), stored("B", 5, 6)
    assert_same(*one_node("FusedMatMul", [a, b], {**attributes, "alpha": 0.25}))


def test_fused_matmul_of_matrices() -> None:
    model, feeds = one_node("FusedMatMul", [normal(3, 4), normal(5, 4)], {"transB": 1})
    canonical = assert_same(model, feeds)
    assert [node.op_type for node in canonical.graph.node] == ["Transpose", "MatMul"]


@pytest.mark.parametrize("opset", [13, 18, 20])
@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Gelu", 1, {}),
        ("BiasGelu", 2, {}),
        ("FastGelu", 1, {}),
        ("FastGelu", 2, {}),
        ("QuickGelu", 1, {}),
        ("QuickGelu", 1, {"alpha": 1.0}),
    ],
)
def test_gelu(op_type: str, inputs: int, attributes: dict[str, float], opset: int) -> None:
    x = 3 * normal(2, 5, 8)
    canonical = assert_same(
        *one_node(op_type, [x, normal(8)][:inputs], attributes, ("y",), opset=opset)
    )
    if opset == 20 and op_type != "QuickGelu":
        assert canonical.graph.node[-1].op_type == "Gelu"


def test_silu_is_two_nodes() -> None:
    model, feeds = one_node("QuickGelu", [normal(2, 5)], {"alpha": 1.0})
    canonical = assert_same(model, feeds)
    assert [node.op_type for node in canonical.graph.node] == ["Sigmoid", "Mul"]


@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [("y",), ("y", "", "", "sum")])
@pytest.mark.parametrize("rms", [False, True])
def test_skip_layer_normalization(
    beta: bool, bias: bool, outputs: Sequence[str], rms: bool
) -> None:
    optional = [normal(8) if beta else None] * (not rms) + [normal(8) if bias else None]
    inputs = [normal(2, 5, 8), normal(2, 5, 8), normal(8), *optional]
    op_type = "SkipSimplifiedLayerNormalization" if rms else "SkipLayerNormalization"
    assert_same(*one_node(op_type, inputs, {"epsilon": 1e-3}, outputs))


@pytest.mark.parametrize("opset", [11, 13, 16, 17])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("outputs", [("y",), ("y", "mean", "inverse")])
def test_layer_normalization_before_its_time(opset: int, axis: int, outputs: Sequence[str]) -> None:
    shape = (8,) if axis == -1 else (5, 8)
    inputs = [normal(2, 5, 8), normal(*shape), normal(*shape)]
    attributes = {"axis": axis, "epsilon": 1e-3}
    model, feeds = one_node("LayerNormalization", inputs, attributes, outputs, opset, domain="")
    canonical = assert_same(model, feeds)
    assert [node.op_type for node in canonical.graph.node] == ["LayerNormalization"]


@pytest.mark.parametrize("axis", [-1, 1])
def test_root_mean_square_normalization(axis: int) -> None:
    inputs = [normal(2, 5, 8), normal(*((8,) if axis == -1 else (5, 8)))]
    attributes = {"axis": axis, "epsilon": 1e-3}
    assert_same(*one_node("SimplifiedLayerNormalization", inputs, attributes, domain=""))


@pytest.mark.parametrize("op_type", ["NhwcConv", "NhwcFusedConv"])
def test_convolutions_with_the_channels_last(op_type: str) -> None:
    """This machine's runtime has no kernel for them: their equal is built by hand."""
    fused = op_type == "NhwcFusedConv"
    attributes: dict[str, Any] = {"strides": [2, 2], "pads": [1, 0, 0, 1]}
    x, z = np.ascontiguousarray(X.transpose(0, 2, 3, 1)), None
    plain, _ = one_node("Conv", [X, W, B], attributes, domain="")
    expected = raw(plain, {"x0": X, "x1": W, "x2": B})["y"].transpose(0, 2, 3, 1)
    if fused:
        z = normal(*expected.shape)
        expected = np.maximum(expected + z, 0)
        attributes["activation"] = "Relu"
    model, feeds = one_node(op_type, [x, W, B, z], attributes)
    declare(model, {"y": expected})
    got = run(canonicalize(model, batch="keep"), feeds)["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_convolutions_with_the_channels_last_in_a_row_need_no_transposes_between() -> None:
    text = """g (float[N, 8, 8, 3] x) => (float[N, 8, 8, 3] y) {
        a = com.microsoft.NhwcConv (x, w)
        b = com.microsoft.NhwcConv (a, w)
        y = com.microsoft.NhwcConv (b, w)
    }"""
    model = in_runtime_domain(text, w=normal(3, 3, 1, 1))
    ops = Counter(node.op_type for node in canonicalize(model).graph.node)
    assert ops == {"Conv": 3, "Transpose": 2}


@pytest.mark.parametrize("domain", ["com.microsoft.nchwc", "com.ms.internal.nhwc"])
def test_memory_layouts_of_one_machine_are_refused_with_a_remedy(domain: str) -> None:
    model, _ = one_node("Conv", [X, W], domain=domain)
    with pytest.raises(UnsupportedOperatorError, match=r"Conv .*EXTENDED or below"):
        canonicalize(model)


# -- whole files ---------------------------------------------------------------------------------


def small_cnn(opset: int) -> onnx.ModelProto:
    """Every kind of fused convolution, a residual, a gated branch, a dense head and a softmax."""
    text = """g (float[N, 3, 16, 16] x) => (float[N, 5] y) {
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
        r1 = Relu (c1)
        c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
        s2 = Add (c2, r1)
        r2 = Relu (s2)
        c3 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r2, w3)
        r3 = Clip (c3, lo, hi)
        c4 = Conv (r3, w4)
        r4 = LeakyRelu <alpha = 0.2> (c4)
        c5 = Conv (r4, w4)
        g5 = Sigmoid (c5)
        m5 = Mul (c5, g5)
        c6 = Conv (m5, w4)
        r6 = HardSigmoid <alpha = 0.2, beta = 0.5> (c6)
        c7 = Conv (r6, w4)
        r7 = Tanh (c7)
        p = GlobalAveragePool (r7)
        f = Flatten (p)
        d = Gemm (f, wd, bd)
        rd = Relu (d)
        e = Gemm (rd, we)
        y = Softmax <axis = 1> (e)
    }"""
    rng = np.random.default_rng(13)  # the fixture that calls this lives for many tests
    weights = {
        "w1": 0.4 * normal(8, 3, 3, 3, rng=rng),
        "b1": normal(8, rng=rng),
        "w2": 0.2 * normal(8, 8, 3, 3, rng=rng),
        "w3": 0.3 * normal(8, 8, 3, 3, rng=rng),
        "w4": 0.5 * normal(8, 8, 1, 1, rng=rng),
        "wd": normal(8, 6, rng=rng),
        "bd": normal(6, rng=rng),
        "we": normal(6, 5, rng=rng),
        "lo": np.array(0.0, np.float32),
        "hi": np.array(2.0, np.float32),
    }
    model = graph_of(text, opset, ir_version=8, **weights)
    for node in model.graph.node:
        node.name = f"/net/{node.output[0]}/{node.op_type}"
    return model


def optimised(model: onnx.ModelProto, folder: Path, level: ort.GraphOptimizationLevel) -> Any:
    """What the runtime writes when it saves the model that it optimised."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


@pytest.fixture(scope="module", params=[11, 12, 13, 17, 20])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model, and the file of it that was optimised at extended level."""
    model = small_cnn(request.param)
    level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return model, optimised(model, tmp_path_factory.mktemp("optimised"), level)


def test_an_extended_file_becomes_standard_again(
    pair: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    model, file = pair
    fused = {n.op_type for n in file.graph.node if n.domain == MICROSOFT}
    assert fused >= {"FusedConv", "FusedGemm"}, "the runtime fuses no longer what it did"
    del file.graph.value_info[:]  # not every optimised file declares the inner tensors
    x = normal(2, 3, 16, 16)
    canonical = canonicalize(file)
    assert canonical_facts(canonical)["batch"] == "free"
    expected, got = run(model, {"x": x})["y"], run(canonical, {"x": x})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_activations_of_an_extended_file_are_those_of_the_original(
    pair: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    x, covered, grads = normal(2, 3, 16, 16), [], []
    for model in pair:
        guided = gr.differentiate(model, wrt=["x"], relu="guided")
        found = gr.coverage(guided).activations
        covered.append(
            sorted((a.op_type, a.kind, a.rule, a.tensor * (a.kind != "smooth")) for a in found)
        )
        ct = np.ones((2, 5), np.float32) * np.arange(5, dtype=np.float32)
        grads.append(run(guided, {"x": x, "cotangent": ct})["grad/x"])
    assert covered[0] == covered[1]
    assert len([a for a in covered[0] if a[1] in ("relu", "clip")]) == 4
    assert np.abs(grads[0]).max() > 0
    np.testing.assert_allclose(grads[1], grads[0], rtol=1e-4, atol=1e-5 * np.abs(grads[0]).max())


def test_layers_keep_their_names(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    paths = [[m.path for m in gr.feature_maps(model)] for model in pair]
    assert "net.c2" in paths[0]
    assert "net.c2" in paths[1]


def test_an_activation_is_named_after_its_output_and_the_rest_after_the_node(
    tmp_path: Path,
) -> None:
    """The runtime gives a fused node the name of the convolution and the output of the ReLU."""
    text = """g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) {
        conv = Conv (x, w)
        relu = Relu (conv)
        y = Conv (relu, w)
    }"""
    model = graph_of(text, 17, ir_version=8, w=normal(3, 3, 1, 1))
    conv, relu, last = model.graph.node
    conv.name, conv.output[0] = "/stem/conv1/Conv", "/stem/conv1/Conv_output_0"
    relu.name, relu.output[0] = "/stem/act1/Relu", "/stem/act1/Relu_output_0"
    relu.input[0], last.input[0] = conv.output[0], relu.output[0]
    file = optimised(model, tmp_path, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    assert [node.op_type for node in file.graph.node] == ["FusedConv", "Conv"]
    paths = {m.path for m in gr.feature_maps(file)}
    assert {"stem.conv1", "stem.act1"} <= paths


def test_an_explanation_model_of_an_extended_file_runs(
    pair: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    feeds = {"x": normal(2, 3, 16, 16), "target": np.full(2, -1)}
    maps = [run(gr.explanation_model(m, "grad_cam"), feeds)["map/grad_cam"] for m in pair]
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-3, atol=1e-5)


def test_a_file_of_basic_level_is_standard_already(tmp_path: Path) -> None:
    model = small_cnn(17)
    file = optimised(model, tmp_path, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    x = normal(2, 3, 16, 16)
    expected, got = run(model, {"x": x})["y"], run(canonicalize(file), {"x": x})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def block(opset: int) -> onnx.ModelProto:
    """A ConvNeXt block as PyTorch writes it: all in small pieces; a scaled product."""
    text = """g (float[N, 8, 4, 4] x) => (float[N, 4, 4, 8] y, float[N, 4, 4, 4] a) {
        t = Transpose <perm = [0, 2, 3, 1]> (x)
        m = ReduceMean <axes = [-1]> (t)
        d = Sub (t, m)
        q = Pow (d, two)
        v = ReduceMean <axes = [-1]> (q)
        ve = Add (v, eps)
        sd = Sqrt (ve)
        n = Div (d, sd)
        ns = Mul (n, scale)
        nb = Add (ns, bias)
        u = MatMul (nb, w1)
        ub = Add (u, b1)
        e0 = Div (ub, root)
        e1 = Erf (e0)
        e2 = Add (e1, one)
        e3 = Mul (ub, e2)
        e4 = Mul (e3, half)
        o = MatMul (e4, w2)
        y = Add (o, t)
        k = Transpose <perm = [0, 1, 3, 2]> (y)
        a0 = MatMul (y, k)
        a = Mul (a0, half)
    }"""
    scalars = {"two": 2, "eps": 1e-6, "root": 2**0.5, "one": 1, "half": 0.5}
    weights = {
        "scale": normal(8),
        "bias": normal(8),
        "w1": normal(8, 16),
        "b1": normal(16),
        "w2": normal(16, 8),
        **{name: np.array(value, np.float32) for name, value in scalars.items()},
    }
    return graph_of(text, opset, ir_version=8, **weights)


@pytest.mark.parametrize("opset", [13, 17])
def test_a_transformer_block(opset: int, tmp_path: Path) -> None:
    model = block(opset)
    file = optimised(model, tmp_path, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    fused = {n.op_type for n in file.graph.node}
    norm = "LayerNormalization" if opset == 17 else "SimplifiedLayerNormalization"
    assert fused >= {"BiasGelu", norm, "FusedMatMul"}
    canonical = canonicalize(file)
    assert {node.domain for node in canonical.graph.node} == {""}
    x = normal(2, 8, 4, 4)
    expected, got = run(model, {"x": x}), run(canonical, {"x": x})
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


def test_a_fused_file_in_half_precision_keeps_its_constants_in_its_type() -> None:
    """The runtime fuses such files for GPUs only; widening comes behind, on standard operators."""
    text = """g (float16[N, 3, 8, 8] x) => (float16[N, 4, 8, 8] y) {
        a = com.microsoft.FusedConv <activation = "Clip", activation_params = [0.0, 6.0]> (x, w)
        y = com.microsoft.FastGelu (a)
    }"""
    model = in_runtime_domain(text, w=normal(4, 3, 1, 1).astype(np.float16))
    x = normal(2, 3, 8, 8)
    got = run(canonicalize(model), {"x": x.astype(np.float16)})["y"]
    c = np.einsum("nchw,kc->nkhw", x, numpy_helper.to_array(model.graph.initializer[0])[..., 0, 0])
    c = np.clip(c, 0, 6)
    expected = c / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (c + 0.044715 * c**3)))
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-2)
