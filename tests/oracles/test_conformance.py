"""The conformance run on small members; `python -m benchmarks.conformance` takes them all."""

import importlib.util

import pytest

pytestmark = pytest.mark.oracles

# One of each kind: gated convolutions, tokens with and without a class token, pooled and mixed
# tokens, windows in NHWC, hybrids, hard activations, chains, relative attention.
MEMBERS = (
    "timm/lcnet_035",
    "timm/tinynet_e",
    "timm/test_convnext",
    "timm/test_vit",
    "timm/pit_ti_224",
    "timm/levit_128s",
    "timm/pvt_v2_b0",
    "timm/poolformer_s12",
    "timm/edgenext_xx_small",
    "torchvision/shufflenet_v2_x0_5",
)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_agrees_with_its_framework(member, tmp_path):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install --no-deps timm")
    from benchmarks.conformance.comparison import measure
    from benchmarks.conformance.torch_reference import TorchReference

    found = measure(member, TorchReference, tmp_path)
    assert found.verdict == "agrees", found.reason
    assert found.layer, "no default layer"


def test_only_the_lowered_model_is_compared_again(tmp_path):
    from benchmarks.conformance.comparison import measure_lowered
    from benchmarks.conformance.results import Result
    from benchmarks.conformance.torch_reference import TorchReference

    figures = {"sharp_image": 1e-9, "image": 1e-7, "own_image": 1e-7, "lowered": 1.0}
    known = Result("timm/lcnet_035", "differs", "lowered: 1.0e+00", figures=figures, lowering="old")
    found = measure_lowered(known, TorchReference, tmp_path)
    assert found.verdict == "agrees" and found.lowering_current and not known.lowering_current
    assert 0.0 < found.figures["lowered"] < 1e-4 and found.figures["image"] == 1e-7


def test_a_fingerprint_is_of_code_not_of_words(tmp_path):
    from benchmarks.conformance.results import _digest

    texts = ('"""Words."""\ndef f():\n    """More."""\n    return 1  # one\n', "def f(): return 1")
    one, two, three = (tmp_path / str(n) / "f.py" for n in range(3))
    for path, text in zip((one, two, three), (*texts, "def f(): return 2"), strict=True):
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    assert _digest(one) == _digest(two) != _digest(three)


def test_the_table_states_every_line(tmp_path):
    from benchmarks.conformance.results import Result, append, read, table, write_table

    path = tmp_path / "results.jsonl"
    append(Result("timm/one", "refused", "NonZero|has no rule", (3, 8, 8), 4, {"NonZero": 1}), path)
    append(Result("timm/one", "agrees", figures={"image": 2e-6, "flips": 3.0}), path)
    append(Result("timm/two", "differs", "image: 2.0e-02 over 1.0e-04"), path)
    results = read(path)
    assert results["timm/one"].verdict == "agrees", "the newest line of a member counts"
    text = table(results)
    assert "| timm | 2 | 1 | 1 | 0 | 0 | 0 |" in text
    assert "| timm/two | differs | image: 2.0e-02 over 1.0e-04 |" in text
    assert "| timm/one |  | 0 |" in text and "| 2.0e-06 |" in text and "| 3 |" in text
    write_table(results, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({}, ""),
        ({"sharp_image": 2e-6}, "sharp, image"),
        ({"layer": 2e-4}, "layer"),
        ({"image": float("nan")}, "image"),
        ({"image": 2e-2, "own_image": 1e-2, "flips": 4.0, "forced": 2e-6}, ""),
        ({"image": 2e-2, "own_image": 1e-2, "flips": 4.0, "forced": 2e-4}, "more than flips"),
        ({"guided": 3e-4}, "guided"),
        ({"image": 2e-2, "own_image": 1e-2}, "flips cannot be counted"),
        ({"lowered": 2e-5}, "lowered"),
        ({"lowered": 2e-5, "own_image": 3e-5}, ""),
        ({"lowered": 2e-5, "own_image": 1e-2, "flips": 4.0}, "lowered"),
        ({"lowered": 2e-5, "moved": 1.0}, ""),
    ],
)
def test_a_missed_bar_is_named(figures, complaint):
    from benchmarks.conformance.comparison import complaints

    fine = {"sharp_image": 1e-8, "image": 1e-6, "own_image": 1e-6, "layer": 1e-6, "own_layer": 1e-6}
    found = complaints({**fine, **figures})
    assert (complaint in " ".join(found)) if complaint else not found
