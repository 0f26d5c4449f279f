"""Old, new and foreign operator sets."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graph_rewrites.canonical import canonical_facts, canonicalize
from graph_rewrites.canonical.young_attributes import _YOUNG
from graph_rewrites.errors import ModelError, UnsupportedOperatorError
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import graph_of

RNG = np.random.default_rng(3)


def _agree(model: onnx.ModelProto, shape: tuple[int, ...], bar: float = 1e-6) -> onnx.ModelProto:
    """The canonical model gives the original's numbers in the runtime."""
    canonical = canonicalize(model)
    feeds = {model.graph.input[0].name: RNG.standard_normal(shape).astype(np.float32)}
    expected = session(model).run(None, feeds)[0]
    result = run(canonical, feeds)[model.graph.output[0].name]
    np.testing.assert_allclose(result, expected, rtol=bar, atol=bar)
    return canonical


@pytest.mark.parametrize(
    ("opset", "expected"), [(7, 18), (13, 18), (18, 18), (20, 20), (21, 21), (22, 21), (25, 21)]
)
def test_the_opset_becomes_18_to_21(opset: int, expected: int):
    model = graph_of("agraph (float[1,4] x) => (float[1,4] y) { y = Softmax<axis=1>(x) }", opset)
    canonical = _agree(model, (1, 4))
    assert canonical.opset_import[0].version == expected
    assert canonical.ir_version == 10


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 2.7])
def test_upsample_stays_asymmetric(opset: int, mode: str, scale: float):
    height, width = int(5 * scale), int(7 * scale)
    node = helper.make_node("Upsample", ["x"], ["y"], mode=mode)
    scales = np.array([1, 1, scale, scale], np.float32)
    initializers = []
    if opset == 9:
        node.input.append("scales")
        initializers.append(numpy_helper.from_array(scales, "scales"))
    else:
        node.attribute.append(helper.make_attribute("scales", scales.tolist()))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 2, 5, 7])],
        [helper.make_tensor_value_info("y", 1, [1, 2, height, width])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    canonical = _agree(model, (1, 2, 5, 7), bar=1e-5)
    assert canonical_facts(canonical)["rewritten"] == ["Upsample"]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [(2.0, 3.0), (1.5, 1.0), (0.4, 0.8), (0.5, 1.0)])
def test_resize_of_opset_10_stays_asymmetric(mode: str, scale: tuple[float, float]):
    _agree(_resize_10(mode, scale), (1, 2, 10, 10), bar=1e-5)


def _resize_10(mode: str, scale: tuple[float, float]) -> onnx.ModelProto:
    height, width = (int(np.floor(10 * factor)) for factor in scale)
    return graph_of(
        f"agraph (float[1,2,10,10] x) => (float[1,2,{height},{width}] y)"
        f'{{ y = Resize<mode="{mode}">(x, scales) }}',
        opset=10,
        scales=np.array([1, 1, *scale], np.float32),
    )


def test_an_old_resize_both_ways_is_exact_or_refused():
    _agree(_resize_10("linear", (0.4, 2.5)), (1, 2, 10, 10), bar=1e-5)
    with pytest.raises(UnsupportedOperatorError, match=r"Resize .*enlarges one axis and shrinks"):
        canonicalize(_resize_10("nearest", (0.4, 2.5)))


def test_a_resize_that_was_half_pixel_stays_half_pixel():
    model = graph_of(
        "agraph (float[1,2,4,4] x) => (float[1,2,7,7] y)"
        ' { y = Resize<mode="linear">(x, r, scales) }',
        opset=11,
        scales=np.array([1, 1, 1.75, 1.75], np.float32),
        r=np.zeros(0, np.float32),
    )
    _agree(model, (1, 2, 4, 4), bar=1e-5)


def test_softmax_over_the_trailing_axes_keeps_its_old_meaning():
    model = graph_of("agraph (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax<axis=1>(x) }", 11)
    _agree(model, (2, 3, 4))


def test_subgraphs_are_converted_too():
    model = graph_of(
        "agraph (float[1,1,3] x) => (float[1,3] y) { c = Constant<value = bool {1}>()  y = If (c) <"
        "then_branch = a () => (float[1,3] p) { p = Squeeze<axes=[1]>(x) },"
        "else_branch = b () => (float[1,3] q) { z = Neg(x)  q = Squeeze<axes=[1]>(z) }> }",
        opset=11,
    )
    _agree(model, (1, 1, 3))


def test_nodes_that_no_version_step_changed_are_taken_over_untouched():
    model = graph_of(
        "agraph (float[1,4] x) => (float[1,4] y) { a = my.Foreign<e: ints = []>(x)  y = Relu(a) }",
        opset=14,
    )
    model.graph.node[0].attribute.append(helper.make_attribute("bytes", b"\xff\xfe"))
    model.graph.quantization_annotation.add(tensor_name="a")
    canonical = canonicalize(model)
    assert canonical.graph.node == model.graph.node
    assert canonical.graph.quantization_annotation == model.graph.quantization_annotation


_CONVERTED = {"Range": {"stash_type"}, "SpaceToDepth": {"mode"}}
"""Young attributes that the converter itself drops, or refuses."""

YOUNG = {
    "Swish": "y = Swish<alpha=1.5>(x)",
    "RMSNormalization": "y = RMSNormalization<axis=-1>(x, scale)",
    "Attention": "y = Attention<q_num_heads=2, kv_num_heads=2>(x, x, x)",
}


@pytest.mark.parametrize("op_type", YOUNG)
def test_operators_younger_than_opset_21_are_expanded(op_type: str):
    scale = {"scale": np.linspace(0.5, 2, 8, dtype=np.float32)} if "scale" in YOUNG[op_type] else {}
    model = graph_of(
        f"agraph (float[2,3,8] x) => (float[2,3,8] y) {{ {YOUNG[op_type]} }}", 24, **scale
    )
    canonical = _agree(model, (2, 3, 8), bar=1e-5)
    assert op_type not in {node.op_type for node in canonical.graph.node}
    assert op_type in canonical_facts(canonical)["rewritten"]


def test_a_young_operator_without_a_body_is_refused_by_name():
    model = graph_of("agraph (float[2,8] x) => (int32[2,8] y) { y = BitCast<to=6>(x) }", opset=26)
    model.graph.node[0].name = "raw bits"
    with pytest.raises(UnsupportedOperatorError) as caught:
        canonicalize(model)
    assert str(caught.value) == (
        "operator BitCast (node 'raw bits', output 'y', opset 26) does not exist in opset "
        "21 and has no standard body; export the model with opset 21 or below"
    )


def _quantised(opset: int, quantise: str, dequantise: str, out: str = "float") -> onnx.ModelProto:
    return graph_of(
        f"agraph (float[1,4] x) => ({out}[1,4] y) {{ r = Relu(x)  q = QuantizeLinear"
        f"<output_dtype=2{quantise}>(r, s)  d = DequantizeLinear<{dequantise}>(q, s)"
        "  y = Neg(d) }",
        opset,
        s=np.float32(0.01).reshape(()),
    )


def test_what_a_quantisation_says_for_clarity_is_dropped():
    model = _quantised(23, ", precision=1", "output_dtype=1")
    canonical = _agree(model, (1, 4))
    onnx.checker.check_model(canonical, full_check=True)
    assert [n.op_type for n in canonical.graph.node] == [n.op_type for n in model.graph.node]


def test_a_quantisation_undone_in_another_type_gets_a_cast():
    model = _quantised(23, "", "output_dtype=11", "double")
    canonical = canonicalize(model)
    onnx.checker.check_model(canonical, full_check=True)
    kinds = [node.op_type for node in canonical.graph.node]
    assert kinds == ["Relu", "QuantizeLinear", "DequantizeLinear", "Cast", "Neg"]
    y = run(canonical, {"x": np.array([[-1, 0.011, 0.5, 9]], np.float32)})["y"]
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, [[0, -0.01, -0.5, -2.55]], rtol=1e-6)


def test_such_a_quantisation_in_a_branch_gets_its_cast_there():
    model = graph_of(
        "agraph (float[4] x, bool c) => (double[4] y) { q = QuantizeLinear(x, s)  y = If (c) <"
        " then_branch = a () => (double[4] d) { d = DequantizeLinear<output_dtype=11>(q, s) },"
        " else_branch = b () => (double[4] e) { e = Cast<to=11>(x) }> }",
        24,
        s=np.float32(0.01).reshape(()),
    )
    feeds = {"x": np.array([0.011, 0.5, 9, 0], np.float32), "c": np.array(True)}
    y = run(canonicalize(model), feeds)["y"]
    np.testing.assert_allclose(y, [0.01, 0.5, 2.55, 0], rtol=1e-6)


def test_a_quantisation_that_divides_in_another_type_is_refused_by_name():
    with pytest.raises(UnsupportedOperatorError) as caught:
        canonicalize(_quantised(23, ", precision=10", "axis=1"))
    assert str(caught.value) == (
        "operator QuantizeLinear (output 'q', opset 23) divides in FLOAT16, which is not known to "
        "be the type of its scale 's'; quantise the model without 'precision'"
    )


def test_no_attribute_is_too_young_for_the_opset():
    """Of every operator that both have, the installed onnx's attributes and those of opset 21."""
    newest = onnx.defs.onnx_opset_version()
    for schema in onnx.defs.get_all_schemas():
        if schema.domain or not onnx.defs.has(schema.name, 21, ""):
            continue
        old = onnx.defs.get_schema(schema.name, 21, "")
        young = set(onnx.defs.get_schema(schema.name, newest, "").attributes) - set(old.attributes)
        handled = {_YOUNG.get(schema.name), *_CONVERTED.get(schema.name, ())}
        assert old.deprecated or young <= handled, schema.name


def test_an_unknown_operator_is_refused_by_name():
    model = graph_of("agraph (float[2] x) => (float[2] y) { y = Wonder(x) }")
    with pytest.raises(UnsupportedOperatorError, match=r"Wonder \(output 'y', opset 18\).*domain"):
        canonicalize(model)


def test_an_operator_that_its_opset_has_abolished_is_refused():
    model = graph_of(
        "agraph (float[1,1,2,2] x) => (float[1,1,4,4] y) { y = Upsample(x, s) }",
        opset=13,
        s=np.array([1, 1, 2, 2], np.float32),
    )
    with pytest.raises(UnsupportedOperatorError, match=r"Upsample .*opset 13\) is no ONNX"):
        canonicalize(model)


def test_an_optimised_file_of_one_machine_is_refused_with_a_remedy():
    model = graph_of("agraph (float[1,4,2,2] x) => (float[1,4,2,2] y) { y = my.ReorderInput(x) }")
    model.graph.node[0].domain = model.opset_import[1].domain = "com.microsoft.nchwc"
    with pytest.raises(UnsupportedOperatorError, match=r"ReorderInput.*memory layout.*EXTENDED"):
        canonicalize(model)


def test_custom_operators_stay():
    model = graph_of("agraph (float[1,4] x) => (float[1,4] y) { y = my.Foreign(x) }", opset=13)
    assert canonicalize(model).graph.node[0].domain == "my"


def test_an_opset_of_the_future_is_refused():
    model = graph_of("agraph (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_import[0].version = 99
    with pytest.raises(ModelError, match=r"opset 99, but the installed onnx knows \d+ at most"):
        canonicalize(model)


def test_what_the_converter_cannot_do_is_one_line():
    model = graph_of("agraph (float[2,2] x) => (float[2,2] y) { y = Cast<to=1>(x) }", 5, 3)
    model.graph.node[0].op_type = "ATen"  # of Caffe2's days
    with pytest.raises(ModelError) as caught:
        canonicalize(model)
    assert "\n" not in str(caught.value)


def test_local_functions_are_inlined():
    model = graph_of("agraph (float[1,4] x) => (float[1,4] y) { y = my.Twice(x) }", opset=13)
    body = [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    model.functions.append(
        helper.make_function("my", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 13)])
    )
    canonical = _agree(model, (1, 4))
    assert [node.op_type for node in canonical.graph.node] == ["Add", "Relu"]
    assert not canonical.functions


def test_the_default_domain_may_be_spelled_out():
    model = graph_of("agraph (float[1,4] x) => (float[1,4] y) { y = Softmax(x) }", opset=11)
    model.graph.node[0].domain = model.opset_import[0].domain = "ai.onnx"
    canonical = canonicalize(model)
    assert {node.domain for node in canonical.graph.node} == {""}
    assert [entry.domain for entry in canonical.opset_import] == ["", "my"]
