"""The conformance run on small members; `python -m benchmarks.conformance` takes them all."""

import importlib.util
from dataclasses import replace

import numpy as np
import onnx
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


def test_only_what_the_present_code_makes_otherwise_is_measured_again(tmp_path):
    from benchmarks.conformance.comparison import measure, renew
    from benchmarks.conformance.torch_reference import TorchReference

    known = measure("torchvision/shufflenet_v2_x0_5", TorchReference, tmp_path)
    before = replace(known, code="old", lowering="old")
    assert not before.current and renew(before, TorchReference, tmp_path) == known

    figures = {**known.figures, "lowered": 1.0}
    before = replace(before, verdict="differs", lowered_model="old", figures=figures)
    found = renew(before, TorchReference, tmp_path)
    assert found.verdict == "agrees" and found.lowering_current
    assert found.figures["build"] == known.figures["build"] and found.figures["lowered"] < 1e-4

    off = replace(before, verdict="differs", figures={**known.figures, "sharp_image": 1.0})
    for stale in (replace(before, models="old"), replace(known, models="old"), off):
        found = renew(stale, TorchReference, tmp_path)
        assert found.models == known.models and found.verdict == "agrees"
        assert found.figures["build"] != known.figures["build"], "all of it was measured"


def test_a_code_digest_is_of_code_not_of_words(tmp_path):
    from benchmarks.conformance.fingerprints import code_digest

    texts = ('"""Words."""\ndef f():\n    """More."""\n    return 1  # one\n', "def f(): return 1")
    one, two, three = (tmp_path / str(n) / "f.py" for n in range(3))
    for path, text in zip((one, two, three), (*texts, "def f(): return 2"), strict=True):
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    assert code_digest(one) == code_digest(two) != code_digest(three)


def test_a_model_digest_is_of_nodes_and_weights_not_of_notes():
    from benchmarks.conformance.fingerprints import model_digest

    def model(weight, note=""):
        made = onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 21]>\n'
            "g (float[N, 600] x) => (float[N, 600] y) { y = Mul(x, w) }"
        )
        values = np.full(600, weight, np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
        made.graph.node[0].doc_string = note
        onnx.helper.set_model_props(made, {"note": note})
        return made

    assert model_digest(model(1.0)) == model_digest(model(1.0, "a note"))
    assert model_digest(model(1.0)) != model_digest(model(2.0))
    assert model_digest(model(1.0)) != model_digest(model(1.0), model(1.0))


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
