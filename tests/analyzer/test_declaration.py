"""Who declares preprocessing and labels: the caller, the sidecar, the catalogue, nobody."""

import pytest

from analyzer.catalog import catalog, demo_image, demo_model, find_by_hash, label_set, models_dir
from analyzer.declaration import declare, read_preprocess
from analyzer.errors import UsageError
from analyzer.preprocess import PRESETS, Preprocess

QDQ = "cb048fc3c8c9bb66c561c8fd1404323df49e73416e4c916e9bbfe5acabd0803c"


def test_nobody_declares():
    found = declare(None, None, None, "")
    assert (found.origin, found.labels, found.assumed) == ("assumed", None, True)


def test_preset_and_object_and_keys():
    assert declare("tf", None, None, "").preprocess == PRESETS["tf"]
    assert declare("tf", None, None, "").origin == "preset tf"
    mine = Preprocess(scale=0.5)
    assert declare(mine, None, None, "").preprocess == mine
    assert declare({"preset": "tf", "channels": "BGR"}, None, None, "").preprocess.channels == "BGR"


def test_sidecar_beside_the_model(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    (tmp_path / "m.toml").write_text('labels = "names.txt"\n[preprocess]\npreset = "caffe"\n')
    found = declare(None, None, tmp_path / "m.onnx", "")
    assert found.preprocess == PRESETS["caffe"]
    assert found.labels == ("cat", "dog")
    assert found.origin == "sidecar m.toml"
    assert not found.assumed
    # Given preprocessing replaces the sidecar's, and keeps its labels.
    again = declare("tf", None, tmp_path / "m.onnx", "")
    assert (again.origin, again.labels) == ("preset tf", ("cat", "dog"))
    assert declare("tf", ["a", "b"], tmp_path / "m.onnx", "").labels == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[preprocess", "TOML"),
        ("[preproces]\n", "nearest: preprocess"),
        ("preprocess = 3\n", "table"),
        ("[preprocess]\nsize = 'x'\n", "whole number"),
        ("labels = 3\n", "labels"),
        ("labels = 'nowhere.txt'\n", "nowhere.txt"),
    ],
)
def test_bad_sidecars_are_one_line(tmp_path, text, message):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        declare(None, None, tmp_path / "m.onnx", "")
    assert "\n" not in str(caught.value)


def test_toml_file_by_path(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text("[preprocess]\nscale = 2.0\n")
    assert declare(str(path), None, None, "").preprocess.scale == 2
    with pytest.raises(UsageError, match=r"none\.toml"):
        declare(tmp_path / "none.toml", None, None, "")


def test_unknown_name_suggests():
    with pytest.raises(UsageError, match="nearest: imagenet"):
        declare("imagnet", None, None, "")


def test_label_files(tmp_path):
    path = tmp_path / "l.txt"
    path.write_bytes("\ufeffcat \r\n\r\ndög\r\n\n".encode())
    assert declare("raw", path, None, "").labels == ("cat", "", "dög")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="labels"):
        declare("raw", path, None, "")


def test_catalogue_entry_by_hash_and_by_name():
    entry = find_by_hash(QDQ)
    assert entry is not None
    found = declare(None, None, None, QDQ)
    assert found.origin == f"catalogue entry {entry.name}"
    assert len(found.labels) == 1001
    assert found.labels[0] == "background"
    assert declare(entry.name, None, None, "").labels == found.labels
    assert declare("raw", entry.name, None, "").labels == found.labels


def test_every_catalogue_entry_reads():
    assert len(catalog()) > 10
    for name, entry in catalog().items():
        assert isinstance(read_preprocess(entry.preprocess, name), Preprocess)
        assert entry.title
        assert entry.licence
        if entry.labels is not None:
            assert label_set(entry.labels), name


def test_label_sets():
    assert len(label_set("imagenet")) == 1000
    assert label_set("nothing of the kind") is None


def test_demo_files_lie_beside_the_catalogue():
    assert demo_model().parent == demo_image().parent == models_dir()
