"""Model files: what is no ONNX is refused in one line that says what it is."""

import gc
import hashlib
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graph_rewrites as gr
from analyzer import files, load
from analyzer.errors import ModelRejectedError, UsageError
from analyzer.sources import external_data, onnx_file, open_model
from tests.graph_rewrites.samples import graph_of


def tiny(weights=None) -> onnx.ModelProto:
    weight = np.ones((4, 3, 3, 3), np.float32) if weights is None else weights
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_file_is_read_and_hashed(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny().SerializeToString())
    opened = open_model(str(path))
    assert opened.model == tiny()
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (opened.name, opened.path) == ("m.onnx", path)


def test_a_proto_is_copied():
    model = tiny()
    opened = open_model(model)
    assert opened.model == model
    assert opened.model is not model
    opened.model.graph.name = "other"
    assert model.graph.name == "tiny"
    assert opened.path is None
    assert open_model(tiny()).sha256 == opened.sha256
    assert open_model(tiny(np.zeros((4, 3, 3, 3), np.float32))).sha256 != opened.sha256


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"PK\x03\x04" + b"\0" * 50, "zip archive, such as PyTorch and Keras save, no ONNX model"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "HDF5"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 50, "TFLite"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "LFS"),
        (b"hello, world", "no ONNX model"),
        (bytes(200), "no ONNX model"),
        (tiny().SerializeToString()[:-40], "truncated"),
    ],
)
def test_other_files_are_named(tmp_path, data, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelRejectedError, match=message) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_missing_files_folders_and_other_objects(tmp_path):
    with pytest.raises(UsageError, match="no such model file"):
        open_model(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="folder"):
        open_model(tmp_path)
    with pytest.raises(UsageError, match="not int"):
        open_model(3)
    with pytest.raises(UsageError, match="no such model file"):
        open_model("bad\0name.onnx")


def test_unknown_operator_names_node_opset_and_remedy(tmp_path):
    model = tiny()
    model.graph.node[0].op_type = "Konv"
    with pytest.raises(ModelRejectedError, match=r"'Konv' \(node 'conv'\).*opset 18; export"):
        open_model(model)


def test_operators_of_other_domains(tmp_path):
    model = tiny()
    model.graph.node[0].domain = "com.example"
    with pytest.raises(ModelRejectedError, match=r"'com.example.Conv'.*com.example opset none"):
        open_model(model)
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(ModelRejectedError, match=r"com\.example opset 3"):
        open_model(model)
    model.functions.append(
        helper.make_function(
            "com.example",
            "Conv",
            ["a", "b"],
            ["c"],
            [helper.make_node("Conv", ["a", "b"], ["c"])],
            [helper.make_opsetid("", 18)],
        )
    )
    assert open_model(model).model.functions[0].name == "Conv"
    microsoft = tiny()
    microsoft.graph.node[0].op_type, microsoft.graph.node[0].domain = "FusedConv", "com.microsoft"
    microsoft.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    open_model(microsoft)


def test_invalid_graph_is_refused():
    model = tiny()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelRejectedError, match="not a valid ONNX model") as caught:
        open_model(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("imported", ["", "ai.onnx"])
@pytest.mark.parametrize("spelled", ["", "ai.onnx"])
def test_both_spellings_of_the_standard_domain(imported, spelled):
    model = tiny()
    model.opset_import[0].domain = imported
    model.graph.node[0].domain = spelled
    opened = open_model(model).model
    assert [(o.domain, o.version) for o in opened.opset_import] == [("", 18)]
    assert opened.graph.node[0].domain == ""
    assert model.graph.node[0].domain == spelled


def save_external(tmp_path, location="w.bin"):
    path = tmp_path / "m.onnx"
    onnx.save_model(tiny(), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_external_weights_are_loaded_and_hashed(tmp_path, monkeypatch):
    path = save_external(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the model's folder counts, not the working one
    opened = open_model(path)
    weights = numpy_helper.to_array(opened.model.graph.initializer[0])
    np.testing.assert_array_equal(weights, 1)
    digest = hashlib.sha256((tmp_path / "w.bin").read_bytes()).hexdigest()
    assert opened.external == {"w.bin": digest}


def test_missing_external_weights_are_named(tmp_path):
    path = save_external(tmp_path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelRejectedError, match=r"w\.bin") as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname"])
def test_external_weights_stay_in_the_model_s_folder(tmp_path, location):
    path = save_external(tmp_path)
    (tmp_path.parent / "secret.bin").write_bytes(bytes(4000))
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRejectedError, match="external weights"):
        open_model(path)


def test_a_proto_with_external_weights_needs_its_path(tmp_path):
    model = onnx.load(save_external(tmp_path), load_external_data=False)
    with pytest.raises(UsageError, match="path"):
        open_model(model)


def test_size_limit(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny().SerializeToString())
    monkeypatch.setattr(onnx_file, "MAX_MODEL_BYTES", 100)
    with pytest.raises(ModelRejectedError, match="2 GiB"):
        open_model(path)


def external(tmp_path, *, folders=False, channels=40):
    """A model with two weights, each in a file of its own."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "v"], ["y"]),
        ],
        "external",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (channels, 3, 3, 3)), ("v", (channels, 5))):
        value = rng.standard_normal(shape).astype(np.float32)
        location = f"weights/{name}.bin" if folders else f"{name}.bin"
        (tmp_path / location).parent.mkdir(exist_ok=True)
        (tmp_path / location).write_bytes(value.tobytes())
        tensor = graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", location), ("length", str(value.nbytes))):
            tensor.external_data.add(key=key, value=entry)
    path = tmp_path / "m.onnx"
    opsets = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


def picture():
    return np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize("folders", [False, True])
def test_one_file_per_tensor_and_folders(tmp_path, folders):
    opened = open_model(external(tmp_path, folders=folders))
    assert all(tensor.raw_data for tensor in opened.model.graph.initializer)
    assert len(opened.external) == 2


def test_a_truncated_external_file_is_refused(tmp_path):
    path = external(tmp_path)
    whole = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(whole[:-1])
    with pytest.raises(ModelRejectedError, match="'w' needs 4320 bytes from byte 0") as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    path = external(tmp_path / "model")
    (tmp_path / "model" / "w.bin").rename(tmp_path / "secret.bin")
    (tmp_path / "model" / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelRejectedError, match="outside the folder of the model") as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


def wide(tmp_path, *, beside):
    """A file whose large weights lie in it, or in files beside it."""
    whole = onnx.load(external(tmp_path, channels=800))
    path = tmp_path / "wide.onnx"
    onnx.save_model(whole, path, save_as_external_data=beside, location="wide.bin")
    return path


@pytest.mark.parametrize("beside", [False, True])
def test_large_weights_stay_in_their_files(tmp_path, beside):
    path = wide(tmp_path, beside=beside)
    whole, outside = load(onnx.load(path), preprocess="imagenet"), load(path, preprocess="imagenet")
    for model in (outside.original, outside.model):
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        assert external_data.is_external(stored["w"])
        assert not external_data.is_external(stored["v"]), "this one is small"
    expected = whole.explain(picture(), method="guided_grad_cam")
    found = outside.explain(picture(), method="guided_grad_cam")
    np.testing.assert_array_equal(found.values, expected.values)
    assert outside.batch == "free"
    assert outside.compile(method="guided_grad_cam") == whole.compile(method="guided_grad_cam")
    assert external_data.bring_in(outside.original) == onnx.load(path)


def test_a_classifier_s_weights_are_in_memory_once(tmp_path):
    text = """net (float[N,3,16,16] x) => (float[N,40] y) {
        m = MaxPool<kernel_shape=[1,1]>(x) r = Relu(m) f = Flatten(r) y = Gemm(f, w) }"""
    path = tmp_path / "m.onnx"
    model = graph_of(text, w=np.random.default_rng(0).standard_normal((768, 40)).astype(np.float32))
    path.write_bytes(model.SerializeToString())
    one = load(path, preprocess="imagenet")
    for method in ("gradient", "guided_backprop"):
        one.explain(picture(), method=method)
        one.explain([picture(), picture()], method=method)
    assert len(external_data._in_memory) == 1
    del one
    gc.collect()
    assert not external_data._in_memory


def test_a_file_that_was_written_anew_is_not_read_for_the_old_model(tmp_path):
    path = wide(tmp_path, beside=False)
    old = load(path, preprocess="imagenet")
    before = old.explain(picture(), method="gradient")
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    path.write_bytes(model.SerializeToString())
    for use in (old.explain, old.profile, old.predict, lambda _: old.compile()):
        with pytest.raises(UsageError, match=r"wide\.onnx: changed since the model was loaded"):
            use(picture())
    new = load(path, preprocess="imagenet").explain(picture(), method="gradient")
    assert not np.array_equal(new.values, before.values)


@pytest.mark.parametrize("field", ["dims", "data_type", "raw_data"])
def test_a_large_weight_of_the_wrong_size_is_refused(tmp_path, field):
    path = wide(tmp_path, beside=False)
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    if field == "dims":
        weight.dims[0] += 1
    elif field == "data_type":
        weight.data_type = TensorProto.DOUBLE
    else:
        weight.raw_data = weight.raw_data[:-4]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRejectedError, match=r"wide\.onnx: not a valid ONNX model"):
        open_model(path)


@pytest.mark.parametrize("cut", [3, 40, 5000, 40_000])
def test_a_file_cut_anywhere_is_refused(tmp_path, cut):
    path = wide(tmp_path, beside=False)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ModelRejectedError, match="no ONNX model, or a truncated one"):
        open_model(path)


def test_a_message_in_parts_is_merged_as_protobuf_does(tmp_path):
    whole = onnx.load(wide(tmp_path, beside=False))
    graph = onnx.ModelProto()
    graph.graph.initializer.extend(whole.graph.initializer)
    rest = onnx.ModelProto()
    rest.CopyFrom(whole)
    del rest.graph.initializer[:]
    path = tmp_path / "parts.onnx"
    path.write_bytes(graph.SerializeToString() + rest.SerializeToString())
    assert external_data.bring_in(open_model(path).model) == whole


def test_a_name_that_is_no_text_and_a_link(tmp_path):
    path = wide(tmp_path, beside=False)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.onnx")
    os.replace(path, odd)
    assert open_model(odd).model == onnx.load(odd)
    link = tmp_path / "link.onnx"
    link.symlink_to(odd)
    assert open_model(link).model == onnx.load(link)


def test_a_large_model_is_written_with_its_weights_beside_it(tmp_path, monkeypatch):
    model = load(external(tmp_path), preprocess="imagenet").compile()
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "e.onnx"

    assert files.write_model(path, model) == path.stat().st_size
    assert not (tmp_path / "out" / "e.onnx.data").exists()
    monkeypatch.setattr(files, "_LARGEST", 100)
    size = files.write_model(path, model)
    assert size == path.stat().st_size + (tmp_path / "out" / "e.onnx.data").stat().st_size
    assert onnx.load(path).graph.initializer == model.graph.initializer


def test_external_data_needs_no_loading_to_be_rewritten(tmp_path):
    model = onnx.load(external(tmp_path), load_external_data=False)
    grads = gr.differentiate(model, ["x"])
    stored = {tensor.name: tensor for tensor in grads.graph.initializer}
    assert (
        stored["w"] == model.graph.initializer[0]
    )  # the reference, relative to the model's folder
    onnx.save(grads, tmp_path / "grads.onnx")
    assert onnx.load(tmp_path / "grads.onnx").graph.initializer[0].raw_data
