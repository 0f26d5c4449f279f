"""Model files: what is no ONNX is refused in one line that says what it is."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer.errors import ModelRejectedError, UsageError
from analyzer.sources import onnx_file, open_model


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
        (b"PK\x03\x04" + b"\0" * 50, "zip"),
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
