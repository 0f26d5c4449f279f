"""A small benchmark as a guard: ratios only, with generous margins."""

import numpy as np
import onnx
import pytest

import graph_rewrites as gr
from analyzer.session import Session
from benchmarks.speed.table import read, write_table
from benchmarks.speed.timing import by_turns
from tests.graph_rewrites.samples import graph_of

SIDE, WIDTH, BLOCKS = 96, 64, 4


def mobile() -> onnx.ModelProto:
    """Inverted residual blocks with ReLU6, the case in which lowering brings most."""
    rng = np.random.default_rng(0)
    weights, body, x = {}, ["h0 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, stem)"], "h0"

    def weight(name: str, *shape: int) -> str:
        fan = shape[1] * shape[2] * shape[3]
        weights[name] = (rng.standard_normal(shape) * (2 / fan) ** 0.5).astype(np.float32)
        return name

    weight("stem", WIDTH, 3, 3, 3)
    wide = 4 * WIDTH
    for i in range(BLOCKS):
        expand, depth = weight(f"e{i}", wide, WIDTH, 1, 1), weight(f"d{i}", wide, 1, 3, 3)
        reduce = weight(f"r{i}", WIDTH, wide, 1, 1)
        body += [
            f"a{i} = Conv({x}, {expand}) b{i} = Clip(a{i}, zero, six)",
            f"c{i} = Conv<group={wide}, pads=[1,1,1,1]>(b{i}, {depth})",
            f"f{i} = Clip(c{i}, zero, six) g{i} = Conv(f{i}, {reduce}) h{i + 1} = Add({x}, g{i})",
        ]
        x = f"h{i + 1}"
    body.append(f"last = Relu({x}) p = GlobalAveragePool(last) s = Flatten(p) y = Gemm(s, dense)")
    weights["dense"] = rng.standard_normal((WIDTH, 10)).astype(np.float32)
    text = f"net (float[N,3,{SIDE},{SIDE}] x) => (float[N,10] y) {{ {' '.join(body)} }}"
    bounds = {"zero": np.float32(0), "six": np.float32(6)}
    return graph_of(text, **weights, **{k: np.asarray(v) for k, v in bounds.items()})


def test_lowered_models_are_faster_and_grad_cam_is_nearly_free():
    model = gr.canonicalize(mobile())
    x = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    feeds = {"x": x, "target": np.array([3])}
    shapes = {name: value.shape for name, value in feeds.items()}

    def runs(built: onnx.ModelProto, fed: dict[str, np.ndarray]):
        opened = Session(built, threads=1)  # so that other tests' threads cost all the same
        return lambda: opened.run(fed)

    gradient = gr.explanation_model(model, "gradient")
    cam = gr.explanation_model(model, "grad_cam")
    contenders = {
        "forward": runs(gr.lower(model, "portable", {"x": x.shape}), {"x": x}),
        "portable": runs(gradient, feeds),
        "lowered": runs(gr.lower(gradient, "cpu", shapes), feeds),
        "Grad-CAM": runs(gr.lower(cam, "cpu", shapes), feeds),
    }
    times = {name: timing.best for name, timing in by_turns(contenders, 1.5).items()}
    assert times["lowered"] < 0.85 * times["portable"]  # seen: 0.64
    assert times["lowered"] < 4.5 * times["forward"]  # seen: 2.7
    assert times["Grad-CAM"] < 1.5 * times["forward"]  # seen: 1.04


def test_the_page_says_which_bars_are_met(tmp_path):
    row = {
        "network": "ResNet-50", "batch": 1, "task": "gradient", "threads": 2, "date": "2026-01-01",
        "processor": "P", "cores": 2, "versions": {"onnx": "1"}, "absent": {}, "code": "",
        "seconds": {
            "forward": {"median": 0.010, "spread": 0.1},
            "lowered": {"median": 0.021, "spread": 0.1},
            "captum": {"median": 0.042, "spread": 0.2},
        },
        "peak": {"lowered": 100.0, "PyTorch eager": 200.0},
    }  # fmt: skip
    page = tmp_path / "page.md"
    write_table([row, {**row, "network": "VGG-16"}], page)
    text = page.read_text(encoding="utf-8")
    assert "| gradient ≤ 2.2 × forward, batch 1 | ResNet-50 2.10, VGG-16 2.10 | yes |" in text
    assert "| ResNet-50 | 1 | 10.0 | 2.10 | 4.20 | 20% |" in text
    assert "2.00 (ResNet-50 2.00, VGG-16 2.00) | yes |" in text
    slow = {**row, "seconds": {**row["seconds"], "lowered": {"median": 0.05, "spread": 0.1}}}
    write_table([slow], page)
    assert "ResNet-50 5.00 | **no** |" in page.read_text(encoding="utf-8")


def test_cuda_has_bars_of_its_own(tmp_path):
    row = {
        "network": "ResNet-50", "batch": 32, "task": "gradient", "threads": 2, "device": "cuda",
        "date": "2026-01-01", "processor": "G", "cores": 2, "versions": {"onnx": "1"},
        "absent": {}, "code": "",
        "seconds": {
            "forward": {"median": 0.010, "spread": 0.1},
            "lowered": {"median": 0.020, "spread": 0.1},
            "PyTorch eager": {"median": 0.025, "spread": 0.1},
            "captum": {"median": 0.010, "spread": 0.1},
        },
        "cuda": {
            "nodes": {"CUDAExecutionProvider": 300, "CPUExecutionProvider": 1},
            "distance": {"float32": 2e-6, "tf32": 3e-3},
        },
    }  # fmt: skip
    page = tmp_path / "page.md"
    write_table([row], page)
    text = page.read_text(encoding="utf-8")
    assert "| nodes left on the CPU | ResNet-50, 32 1.00 | **no** |" in text
    assert "| distance from the CPU's gradient, tf32 | ResNet-50, 32 3.0e-03 |  |" in text
    assert "| lowered over PyTorch eager, batch 32 | ResNet-50 0.80 | yes |" in text
    assert "| lowered over captum, batch 32 | ResNet-50 2.00 | **no** |" in text
    assert "## CUDA, gradient" in text


def test_the_newest_row_counts(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = '{"network": "A", "batch": 1, "task": "gradient", "date": "%s"}\n'
    file.write_text(row % "old" + row % "new", encoding="utf-8")
    assert [found["date"] for found in read(file)] == ["new"]
    on_cuda = row.replace("{", '{"device": "cuda", ', 1) % "newer"
    file.write_text(row % "new" + on_cuda, encoding="utf-8")
    assert [found["date"] for found in read(file)] == ["new", "newer"]
    with pytest.raises(StopIteration):
        next(iter(read(tmp_path / "none.jsonl")))
