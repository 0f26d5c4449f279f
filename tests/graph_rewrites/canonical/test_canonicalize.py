"""The invariant of canonical form: the same outputs, whatever the model was before."""

import json
import time

import numpy as np
import onnx
import pytest

import graph_rewrites
from graph_rewrites.canonical import canonical_facts, canonicalize, open_canonical
from graph_rewrites.errors import ModelError
from graph_rewrites.graph import Graph
from tests.graph_rewrites.runtime import run, session
from tests.graph_rewrites.samples import LIGHT, graph_of, light, with_random_weights

ASSETS = [
    "squeezenet1.1_imagenet_fp16",
    "mobilenet_v2_imagenet_qdq",
    "mobilenet_v2_imagenet_f32",
    "mnist_cntk",
    "cifar10_pytorch",
]


def _images(model: onnx.ModelProto, count: int = 2) -> tuple[str, np.ndarray]:
    """The name of a model's input, and `count` different random images for it."""
    initialised = {tensor.name for tensor in model.graph.initializer}
    (value,) = [value for value in model.graph.input if value.name not in initialised]
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    rng = np.random.default_rng(1)
    shade = rng.uniform(0, 255, (count, *(max(1, dim // 28) for dim in dims)))
    for axis, dim in enumerate(dims, start=1):  # large patches: noise alone looks alike to a net
        shade = np.repeat(shade, -(-dim // shade.shape[axis]), axis).take(range(dim), axis)
    return value.name, (0.8 * shade + rng.uniform(0, 50, shade.shape)).astype(dtype)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


def _check(model: onnx.ModelProto, bar: float) -> onnx.ModelProto:
    """Compare a model with its canonical form on two images, apart and together."""
    before = model.SerializeToString(deterministic=True)
    canonical = canonicalize(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(canonical, full_check=True)
    assert {node.domain for node in canonical.graph.node} == {""}
    assert [v.name for v in canonical.graph.output] == [v.name for v in model.graph.output]
    assert 18 <= canonical.opset_import[0].version <= 21
    assert canonical.ir_version == 10
    assert canonical_facts(canonical)["batch"] == "free"
    name, images = _images(model)
    old, new = session(model), session(canonical)
    for output in (value.name for value in model.graph.output):
        apart = [old.run([output], {name: image[None]})[0] for image in images]
        assert _distance(apart[0], apart[1]) > 1e-2, "the images cannot be told apart"
        for image, expected in zip(images, apart, strict=True):
            (result,) = new.run([output], {name: image[None]})
            assert result.dtype == expected.dtype
            assert result.shape == expected.shape
            assert _distance(result, expected) <= bar
        (together,) = new.run([output], {name: images})
        assert _distance(together, np.concatenate(apart)) <= max(bar, 1e-5)
    return canonical


def _with_logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the logits in place of the softmax, which random weights saturate."""
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        model.graph.output[0].name = last.input[0]
        del model.graph.node[-1]
    return model


@pytest.mark.parametrize(
    "name", [name for name in LIGHT if name not in ("bvlc_alexnet", "vgg19", "zfnet512")]
)
def test_light_models_keep_their_numbers(name: str):
    _check(_with_logits(with_random_weights(light(name))), bar=1e-6)


@pytest.mark.parametrize("name", ["bvlc_alexnet", "zfnet512", "vgg19"])
@pytest.mark.slow
def test_light_models_of_hundreds_of_megabytes_keep_their_numbers(name: str):
    _check(_with_logits(with_random_weights(light(name), largest=200_000_000)), bar=1e-5)


@pytest.mark.parametrize("name", LIGHT)
def test_light_models_are_freed_checked_and_grow_no_larger(name: str):
    model = light(name)
    canonical = canonicalize(model)
    onnx.checker.check_model(canonical, full_check=True)
    assert canonical_facts(canonical)["batch"] == "free"
    for value in (*canonical.graph.input, *canonical.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    assert canonical.ByteSize() <= 1.02 * model.ByteSize()


@pytest.mark.shared
@pytest.mark.parametrize("name", ASSETS)
def test_real_files_keep_their_numbers(shared, name: str):
    model = onnx.load(shared / "models" / f"{name}.onnx")
    canonical = _check(model, bar=2e-3 if "fp16" in name else 0.0)
    assert canonical.ByteSize() <= 1.02 * model.ByteSize()
    declared = [entry.key for entry in canonical.metadata_props]
    assert declared == [*(e.key for e in model.metadata_props), "graph_rewrites.canonical"]


@pytest.mark.shared
def test_integer_convolutions_of_a_quantised_file_stay(shared, tmp_path):
    model = onnx.load(shared / "models" / "mobilenet_v2_imagenet_qdq.onnx")
    optimised = tmp_path / "optimised.onnx"
    session(canonicalize(model), save_to=str(optimised))
    operators = [node.op_type for node in onnx.load(optimised).graph.node]
    assert operators.count("QLinearConv") == 53
    assert operators.count("Conv") == 0


@pytest.mark.shared
def test_the_published_output_of_the_float16_file_is_reproduced(shared):
    from PIL import Image

    model = canonicalize(onnx.load(shared / "models" / "squeezenet1.1_imagenet_fp16.onnx"))
    picture = Image.open(shared / "images" / "fish.png").convert("RGB")
    bgr = np.asarray(picture)[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float16)
    (output,) = run(model, {"data_0": bgr}).values()
    published = shared / "models" / "squeezenet1.1_fish_golden.csv"
    golden = np.loadtxt(published, delimiter=",", skiprows=1)[:, 1]
    assert np.abs(output.reshape(-1).astype(np.float64) - golden).max() < 2e-3


def test_canonical_form_is_idempotent():
    once = canonicalize(light("squeezenet"))
    twice = canonicalize(once)
    assert twice is not once
    assert twice == once


def test_a_stamped_model_is_left_alone_even_where_the_batch_was_kept():
    kept = canonicalize(light("squeezenet"), batch="keep")
    assert canonical_facts(kept)["batch"] == "keep"
    assert kept.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert canonicalize(kept, batch="free") == kept


def test_the_stamp_says_what_was_done():
    model = graph_of(
        "agraph (float16[1,4] x) => (float16[1,4] y) { a = Dropout(x)  y = Mul(a, w) }",
        w=np.arange(4, dtype=np.float16),
    )
    canonical = canonicalize(model)
    assert canonical_facts(canonical) == {
        "version": 2,
        "batch": "free",
        "widened": ["float16"],
        "rewritten": ["Dropout"],
    }
    assert canonical_facts(model) == {}


@pytest.mark.parametrize("stamp", ["", "no JSON", "[]", '{"version": 0}', "{}"])
def test_a_stamp_of_another_version_does_not_count(stamp: str):
    model = light("squeezenet")
    model.metadata_props.add(key="graph_rewrites.canonical", value=stamp)
    assert canonical_facts(model) == {}
    canonical = canonicalize(model)
    assert canonical_facts(canonical)["version"] == 2
    stamps = [e for e in canonical.metadata_props if e.key == "graph_rewrites.canonical"]
    assert len(stamps) == 1


def test_metadata_survives_the_converter():
    model = light("resnet50")
    model.doc_string, model.model_version, model.domain = "doc", 3, "org.example"
    model.metadata_props.add(key="k", value="v")
    model.graph.metadata_props.add(key="g", value="v")
    model.graph.doc_string = "graph doc"
    model.graph.input[0].doc_string = "an image"
    model.graph.input[0].metadata_props.add(key="i", value="v")
    for node in model.graph.node:
        node.doc_string = f"doc of {node.output[0]}"
        node.metadata_props.add(key="scope", value=node.output[0])
    canonical = canonicalize(model)
    assert (canonical.doc_string, canonical.model_version, canonical.domain) == (
        "doc",
        3,
        "org.example",
    )
    assert canonical.metadata_props[0].value == "v"
    assert canonical.graph.metadata_props == model.graph.metadata_props
    assert canonical.graph.doc_string == "graph doc"
    first = model.graph.input[0].name
    (value,) = [value for value in canonical.graph.input if value.name == first]
    assert (value.doc_string, value.metadata_props[0].key) == ("an image", "i")
    for node in canonical.graph.node:
        assert node.doc_string == f"doc of {node.output[0]}"
        assert node.metadata_props[0].value == node.output[0]


def test_tensors_that_still_exist_keep_their_names():
    model = light("densenet121")
    canonical = canonicalize(model)
    before = {name for node in model.graph.node for name in node.output}
    after = {name for node in canonical.graph.node for name in node.output}
    assert after <= before
    gone = [n.op_type for n in model.graph.node if not after.issuperset(n.output)]
    assert set(gone) <= {"ConstantOfShape", "Unsqueeze"}  # constants that were folded


def test_an_opened_graph_is_the_canonical_model():
    model = light("inception_v1")
    opened = open_canonical(model)
    assert isinstance(opened, Graph)
    assert opened.export() == canonicalize(model)
    assert open_canonical(canonicalize(model)).export() == canonicalize(model)


def test_opening_copies_no_weights_and_is_quick():
    """ResNet-50 with its 100 MB, best of five."""
    model = with_random_weights(light("resnet50"))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        graph = open_canonical(model)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.4
    weight = next(t for t in model.graph.initializer if t.ByteSize() > 1_000_000)
    assert graph.bulk(weight.name) is weight


def test_only_free_and_keep_are_known():
    with pytest.raises(ValueError, match="batch is 'fixed', but must be"):
        canonicalize(light("squeezenet"), batch="fixed")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ y = Relu(gone) }", r"'gone', read by Relu \(output 'y'\), has no value"),
        ("{ y = Relu(x)  y = Neg(x) }", r"'y' is computed by Neg .* has a value already"),
        ("{ z = Relu(x) }", "output 'y' is neither computed nor given"),
        ("{ a = Add(x, b)  b = Relu(a)  y = Neg(b) }", "cycle through Add"),
    ],
)
def test_wiring_that_does_not_add_up_is_refused(text: str, message: str):
    model = graph_of(f"agraph (float[1,2] x) => (float[1,2] y) {text}")
    with pytest.raises(ModelError, match=message) as caught:
        canonicalize(model)
    assert "\n" not in str(caught.value)


def test_unsorted_nodes_are_sorted():
    model = light("squeezenet")
    nodes = list(model.graph.node)[::-1]
    shuffled = onnx.ModelProto.FromString(model.SerializeToString())
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    canonical = canonicalize(shuffled)
    onnx.checker.check_model(canonical, full_check=True)
    assert len(canonical.graph.node) == len(canonicalize(model).graph.node)


def test_three_thousand_nodes_in_a_row():
    text = " ".join(f"t{i + 1} = Relu(t{i})" for i in range(3000))
    model = graph_of(f"agraph (float[1,2] t0) => (float[1,2] t3000) {{ {text} }}", opset=13)
    canonical = canonicalize(model)
    assert len(canonical.graph.node) == 3000
    assert canonical.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_file_that_declares_no_opset_is_refused():
    with pytest.raises(ModelError, match="does not say which ONNX operator set"):
        canonicalize(onnx.ModelProto())


def test_the_stamp_is_json_in_the_models_metadata():
    (entry,) = [
        e
        for e in canonicalize(light("squeezenet")).metadata_props
        if e.key == "graph_rewrites.canonical"
    ]
    assert json.loads(entry.value)["rewritten"] == ["Dropout"]


def test_the_package_offers_it():
    assert graph_rewrites.canonicalize is canonicalize
