"""Explanations: indexing, pictures, and a round trip through the disk."""

import json
import zipfile

import numpy as np
import pytest

from analyzer import Explanation, UsageError
from analyzer.archive import file_stems, save
from analyzer.geometry import Geometry
from analyzer.pictures import Picture
from graph_rewrites.coverage import ActivationRule, Coverage

COVERAGE = Coverage((ActivationRule("t", "n", "Relu", "relu", "guided"),))


def explanation(images=2, targets=1, signed=False, names=None, **changes) -> Explanation:
    rng = np.random.default_rng(3)
    several = targets > 1
    lead = (images, targets) if several else (images,)
    shape = (*lead, 3, 8, 10) if signed else (*lead, 8, 10)
    values = rng.standard_normal(shape).astype(np.float32)
    pixels = rng.integers(0, 256, (images, 20, 30, 3), np.uint8)
    names = names or [f"picture {i}.png" for i in range(images)]
    made = {
        "values": values if signed else np.abs(values),
        "axes": "N" + "T" * several + "C" * signed + "HW",
        "grid": None if signed else np.ones((*lead, 2, 2), np.float32),
        "target": np.arange(np.prod(lead)).reshape(lead),
        "scores": np.linspace(0, 1, int(np.prod(lead)), dtype=np.float32).reshape(lead),
        "layer": None if signed else "features.7",
        "method": "guided_backprop" if signed else "grad_cam",
        "coverage": COVERAGE,
        "provenance": {"images": [{"name": name} for name in names], "versions": {"a": "1"}},
        "outputs": {"prob/0": rng.random((images, 5), np.float32)},
        "labels": tuple(tuple(f"c{t}" for t in range(targets)) for _ in range(images)),
        "pictures": tuple(
            Picture(name, one, "ab", "file", "PNG RGB", 6, ("a note",))
            for name, one in zip(names, pixels, strict=True)
        ),
        "geometry": (Geometry((20, 30), (8, 10), (0.4, 0.4), (0.0, -1.0)),) * images,
        "signed": signed,
        "listed": images > 1,
    }
    return Explanation(**{**made, **changes})


def test_one_image_keeps_its_leading_axis():
    e = explanation(3, targets=2)
    one = e[1]
    assert (len(e), len(one)) == (3, 1)
    np.testing.assert_array_equal(one.values, e.values[1:2])
    np.testing.assert_array_equal(one.grid, e.grid[1:2])
    np.testing.assert_array_equal(one.target, e.target[1:2])
    np.testing.assert_array_equal(one.outputs["prob/0"], e.outputs["prob/0"][1:2])
    assert one.names == ("picture 1.png",)
    assert one.provenance["images"] == [{"name": "picture 1.png"}]
    np.testing.assert_array_equal(e[-1].values, e.values[2:])
    assert [len(part) for part in e] == [1, 1, 1]
    with pytest.raises(IndexError):
        e[3]


def test_arrays_are_a_record():
    e = explanation()
    for array in (e.values, e.grid, e.target, e.scores, e.outputs["prob/0"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("targets", [1, 2])
def test_heatmap_of_a_signed_map_is_the_largest_channel(targets):
    e = explanation(targets=targets, signed=True)
    largest = np.abs(e.values).max(axis=-3)
    expected = largest / largest.max(axis=(-2, -1), keepdims=True)
    np.testing.assert_allclose(e.heatmap, expected, rtol=1e-6)
    assert e.heatmap.shape == ((2, 8, 10) if targets == 1 else (2, 2, 8, 10))
    assert e.heatmap.min() >= 0


def test_pictures_have_the_original_s_size_and_are_nested_like_the_call():
    one = explanation(1)
    assert one.overlay().size == (30, 20)
    assert [p.size for p in explanation(2).overlay()] == [(30, 20)] * 2
    assert [p.size for p in explanation(1, targets=3).overlay()] == [(30, 20)] * 3
    nested = explanation(2, targets=3).overlay()
    assert [len(row) for row in nested] == [3, 3]
    assert explanation(2)[0].overlay().size == (30, 20)
    listed = explanation(1, listed=True)
    assert len(listed.overlay()) == 1


def test_signed_picture_has_zero_at_mid_grey():
    values = np.zeros((1, 3, 8, 10), np.float32)
    values[0, 0, 3:5, 3:5] = 1
    e = explanation(1, signed=True, values=values)
    drawn = np.asarray(e.picture())
    assert drawn.shape == (20, 30, 3)
    np.testing.assert_array_equal(drawn[0, 0], [128, 128, 128])
    assert drawn[10, 12, 0] > 220
    swapped = np.asarray(explanation(1, signed=True, values=values, channels="BGR").picture())
    np.testing.assert_array_equal(swapped, drawn[..., ::-1])


def test_an_unsigned_map_is_no_signed_picture():
    with pytest.raises(UsageError, match="no sign"):
        explanation().picture()


def same(a: Explanation, b: Explanation) -> None:
    for name in ("values", "grid", "target", "scores"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.outputs.keys() == b.outputs.keys()
    for name, array in a.outputs.items():
        np.testing.assert_array_equal(array, b.outputs[name])
    for name in ("axes", "layer", "method", "labels", "geometry", "signed", "channels", "listed"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.provenance == b.provenance
    assert a.coverage == b.coverage
    for one, other in zip(a.pictures, b.pictures, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert {**vars(one), "pixels": 0} == {**vars(other), "pixels": 0}


@pytest.mark.parametrize("changes", [{}, {"signed": True, "targets": 2}, {"coverage": None}])
def test_npz_holds_everything(tmp_path, changes):
    e = explanation(**changes)
    assert e.save(tmp_path / "e.npz") == [tmp_path / "e.npz"]
    found = Explanation.load(tmp_path / "e.npz")
    same(e, found)
    for kind, drawing in e.drawings(1, 0).items():
        np.testing.assert_array_equal(np.asarray(found.drawings(1, 0)[kind]), np.asarray(drawing))
    assert list(tmp_path.iterdir()) == [tmp_path / "e.npz"]


def test_the_same_explanation_gives_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        explanation().save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_npz_is_read_without_pickle(tmp_path):
    explanation().save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        assert stored["values"].dtype == np.float32
    assert meta["schema"] == 1


def test_the_folder_of_a_single_file_is_made(tmp_path):
    path = tmp_path / "new" / "deeper" / "e.npz"
    assert explanation().save(path) == [path]
    assert list(path.parent.iterdir()) == [path]


def test_folder_gets_the_pictures(tmp_path):
    e = explanation(2, names=["cat.png", "dog.jpeg"])
    written = e.save(tmp_path / "new" / "out")
    assert sorted(path.name for path in written) == [
        "cat.grad_cam.heatmap.png",
        "cat.grad_cam.overlay.png",
        "dog.grad_cam.heatmap.png",
        "dog.grad_cam.overlay.png",
        "grad_cam.npz",
    ]
    assert sorted(written) == sorted((tmp_path / "new" / "out").iterdir())
    same(e, Explanation.load(tmp_path / "new" / "out" / "grad_cam.npz"))


def test_folder_names_targets_and_signed_maps(tmp_path):
    written = explanation(1, targets=2, signed=True, names=["a.png"]).save(tmp_path)
    names = {path.name for path in written}
    assert "a.guided_backprop.npz" in names
    assert {"a.guided_backprop.0.signed.png", "a.guided_backprop.1.overlay.png"} <= names
    assert len(names) == 1 + 2 * 3


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["../../etc/passwd", "a b.png"], ["passwd", "a-b"]),
        (["x/same.png", "y/SAME.jpg"], ["same", "SAME-1"]),
        (["CON.png", "\u202e.png"], ["image-CON", "image"]),
        (["<script>.png"], ["script"]),
        (["a.png", "a-1.png", "a.jpg"], ["a", "a-1", "a-2"]),
        (["x" * 300 + ".png"], ["x" * 60]),
        (["x" * 60 + "a", "x" * 60 + "b"], ["x" * 60, "x" * 58 + "-1"]),
        (["\u043a\u043e\u0442.png", "image.png"], ["image", "image-1"]),
        (["cat.jpg", "cat!.jpg", "cat-1.png"], ["cat", "cat-1", "cat-1-1"]),
    ],
)
def test_file_names_are_safe_and_unique(tmp_path, names, stems):
    written = explanation(len(names), names=names).save(tmp_path)
    overlays = [path.name for path in written if path.name.endswith("overlay.png")]
    assert overlays == [f"{stem}.grad_cam.overlay.png" for stem in stems]
    assert all(path.parent == tmp_path for path in written)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError):
        explanation().save(tmp_path / "file" / "out")
    with pytest.raises(UsageError):
        explanation().save(tmp_path / "file" / "e.npz")


@pytest.mark.parametrize(
    "name", ["a" * 59 + "!b", "-a b-", "con.png", "\u043a\u043e\u0442", "x" * 300]
)
def test_a_stem_stays_what_it_is(name):
    (stem,) = file_stems([name])
    assert file_stems([f"{stem}.png"]) == [stem]


def test_a_caller_can_say_how_the_files_begin(tmp_path):
    written = save(explanation(1, names=["a.png"]), tmp_path, ["a-7"])
    assert written[0].name == "a-7.grad_cam.npz"
    assert Explanation.load(written[0]).names == ("a.png",)


def test_one_of_several_layers_says_so_in_its_names(tmp_path):
    e = explanation(1, targets=2, names=["a.png"], mark="layer4-1")
    names = {path.name for path in e.save(tmp_path)}
    assert {"a.grad_cam.layer4-1.npz", "a.grad_cam.layer4-1.1.overlay.png"} <= names
    assert Explanation.load(tmp_path / "a.grad_cam.layer4-1.npz").mark == "layer4-1"


def test_an_archive_without_a_mark_is_read(tmp_path):
    path = tmp_path / "old.npz"
    explanation().save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    meta = json.loads(str(arrays["meta"]))
    del meta["mark"]
    np.savez(path, **{**arrays, "meta": np.array(json.dumps(meta))})
    same(explanation(), Explanation.load(path))


def pickled(path):
    np.savez(path, meta=np.array([{"a": 1}], dtype=object))


def stranger(path):
    np.savez(path, a=np.zeros(3))


def newer(path):
    np.savez(path, meta=np.array(json.dumps({"schema": 99})))


def cut(path):
    explanation().save(path)
    path.write_bytes(path.read_bytes()[:200])


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.npy", b"nothing")


def listed(path):
    np.savez(path, meta=np.array("[1]"))


@pytest.mark.parametrize("spoil", [pickled, stranger, newer, cut, zipped, listed])
def test_other_archives_are_one_line(tmp_path, spoil):
    path = tmp_path / "e.npz"
    spoil(path)
    with pytest.raises(UsageError) as caught:
        Explanation.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_archive(tmp_path):
    with pytest.raises(UsageError, match="none"):
        Explanation.load(tmp_path / "none.npz")
