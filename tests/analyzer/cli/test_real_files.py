"""The command line on files that nobody here wrote."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analyzer import Explanation
from analyzer.catalog import demo_model
from tests.analyzer.cli.conftest import Answer

pytestmark = pytest.mark.shared
Call = Callable[..., Answer]


def test_a_quantised_model_tells_dog_from_cat(call: Call, shared: Path, tmp_path: Path) -> None:
    model = shared / "models" / "mobilenet_v2_imagenet_qdq.onnx"
    image = shared / "images" / "dog_cat.png"
    classes = ["-t", "bull mastiff", "-t", "tiger cat"]
    answer = call("explain", model, image, *classes, "-o", tmp_path, "--format", "json")
    assert answer.code == 0, answer.err
    assert answer.err == ""
    (entry,) = json.loads(answer.out)["images"][0]["maps"]
    assert [target["label"] for target in entry["targets"]] == ["bull mastiff", "tiger cat"]
    (archive,) = tmp_path.glob("*.npz")
    dog, cat = Explanation.load(archive).heatmap[0]
    rows = [int(np.unravel_index(heat.argmax(), heat.shape)[0]) for heat in (dog, cat)]
    assert rows[0] < rows[1], "in this photograph the dog sits above the cat"


def test_inspect_knows_a_real_file_by_its_hash(call: Call, shared: Path) -> None:
    answer = call(
        "inspect", shared / "models" / "mobilenet_v2_imagenet_qdq.onnx", "--format", "json"
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["preprocess"]["known"] is True
    assert found["quantised"] is True
    assert found["image"]["layout"] == "NHWC"
    assert found["scores"]["peeled"] == ["Softmax", "QuantizeLinear"]
    assert found["scores"]["labels"] == found["scores"]["classes"] == 1001
    assert {row["verdict"] for row in found["operators"]} <= {"rule", "zero"}
    assert Counter(row["rule"] for row in found["activations"]["rules"]) == {"guided": 35}


@pytest.mark.slow
def test_hostile_pictures_cost_nothing_but_themselves(
    call: Call, shared: Path, tmp_path: Path
) -> None:
    pictures = [path for path in sorted((shared / "corpora").rglob("*")) if path.is_file()]
    assert len(pictures) > 100
    answer = call("explain", demo_model(), *pictures, "-o", tmp_path, "--format", "jsonl")
    assert answer.code == 3
    assert "Traceback" not in answer.err
    results = [json.loads(line) for line in answer.out.splitlines()]
    assert [result["image"] for result in results] == [str(path) for path in pictures]
    reasons = [result["error"] for result in results if "error" in result]
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert 50 < len(reasons) == len(errors) < len(pictures) - 50
    written = [
        file for result in results for entry in result.get("maps", ()) for file in entry["files"]
    ]
    assert len(set(written)) == len(written) == len(list(tmp_path.iterdir()))
    assert all(Path(file).parent == tmp_path for file in written)
