"""The runtime's door: settings recorded, providers honest, errors in one line."""

import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from analyzer import session as door
from analyzer.cli import options
from analyzer.errors import AnalyzerError, MissingProviderError, ModelRejectedError, UsageError
from analyzer.session import Session, provider_report, settle
from analyzer.sources import external_data, open_model
from tests.graph_rewrites.samples import graph_of


def relu() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N"])
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "g", [x], [y, z])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_run_returns_arrays_by_name():
    session = Session(relu())
    x = np.array([-1, 2], np.float32)
    found = session.run({"x": x})
    assert list(found) == ["y", "z"]
    np.testing.assert_array_equal(found["y"], [0, 2])
    assert list(session.run({"x": x}, ["z"])) == ["z"]


def test_settings_are_recorded():
    session = Session(relu().SerializeToString(), optimization="none", threads=1)
    assert (session.device, session.provider) == ("cpu", "CPUExecutionProvider")
    assert session.settings["onnxruntime"] == onnxruntime.__version__
    assert session.settings["graph_optimization"] == "none"
    with pytest.raises(TypeError):
        session.settings["provider"] = "other"


DENORMALS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from onnx import TensorProto, helper
from analyzer.session import Session
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
session, tiny = Session(model, threads=1), {"x": np.array([1e-40], np.float32)}
with ThreadPoolExecutor(1) as pool:  # as runs side by side have it
    print(session.run(tiny)["y"][0], pool.submit(session.run, tiny).result()["y"][0])
"""


def test_denormals_are_zero(root):
    """In a process of its own: the runtime takes the setting from a process's first session."""
    command = [sys.executable, "-c", DENORMALS]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout == "0.0 0.0\n"


def test_threads_are_idle_between_runs():
    """Else those of a session that just ran hold up the next session's."""
    session = Session(relu(), threads=2)
    values = {"x": np.zeros(1 << 20, np.float32)}

    def seconds_worked_while_nothing_runs() -> float:
        session.run(values)
        before = time.process_time()
        time.sleep(0.05)
        return time.process_time() - before

    assert min(seconds_worked_while_nothing_runs() for _ in range(3)) < 0.01


def test_broken_models_and_wrong_inputs_are_one_line(capfd):
    with pytest.raises(ModelRejectedError) as caught:
        Session(b"no model")
    assert "\n" not in str(caught.value)
    broken = relu()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelRejectedError, match="NoSuchOperator"):
        Session(broken)
    with pytest.raises(AnalyzerError, match="the runtime failed") as failed:
        Session(relu()).run({"x": np.zeros((2, 2), np.float32)})
    assert "ONNXRuntimeError" not in str(failed.value)
    assert capfd.readouterr() == ("", "")  # the runtime has said nothing by itself


def cuda_loads() -> bool:
    return provider_report().loads["CUDAExecutionProvider"]


def test_cuda_is_an_error_or_really_cuda(capfd):
    if cuda_loads():
        assert Session(relu(), "cuda").provider == "CUDAExecutionProvider"
        assert Session(relu(), "cuda").settings["use_tf32"] == "0"
    else:
        with pytest.raises(MissingProviderError, match="cuda") as caught:
            Session(relu(), "cuda")
        assert caught.value.exit_code == 6
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_auto_says_what_it_took(capfd):
    settled = settle("auto")
    assert settled.device == ("cuda" if cuda_loads() else "cpu")
    assert settled.reason
    assert settled.device == "cuda" or "CPU, because" in settled.reason
    assert capfd.readouterr() == ("", "")


def test_a_runtime_built_without_cuda(monkeypatch):
    monkeypatch.setattr(door.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingProviderError, match="built without CUDA"):
        settle("cuda")
    assert settle("auto").device == "cpu"


def test_silent_fallback_of_the_runtime_is_an_error(monkeypatch):
    """The runtime gives a CPU session where CUDA's libraries are missing, without an exception."""
    real = onnxruntime.InferenceSession

    def fallback(data, sess_options, providers):
        return real(data, sess_options=sess_options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(door.ort, "InferenceSession", fallback)
    monkeypatch.setattr(
        door.ort,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    with pytest.raises(MissingProviderError, match="do not load"):
        settle("cuda")
    assert settle("auto").provider == "CPUExecutionProvider"


def test_a_missing_runtime_is_named():
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import analyzer\n"
        "try: analyzer.load('m.onnx')\n"
        "except analyzer.AnalyzerError as error: print(error.exit_code, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("6 onnxruntime does not load")


def test_precision():
    assert options.PRECISIONS == door.PRECISIONS  # there without loading the runtime
    assert settle("cpu").precision == "float32"
    with pytest.raises(UsageError, match="unknown precision 'int8'; known: float32, tf32, float16"):
        settle("cuda", "int8")
    with pytest.raises(UsageError, match="precision 'tf32' needs device 'cuda'; this is the CPU"):
        settle("cpu", "tf32")


def test_unknown_device():
    with pytest.raises(UsageError, match="known: cpu, cuda, auto"):
        settle("tpu")


def test_report_tries_for_real(capfd):
    report = provider_report()
    assert report.loads["CPUExecutionProvider"] is True
    assert report.loads["CUDAExecutionProvider"] or report.note
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_handed_over_are_those_of_the_file(tmp_path):
    """The runtime transposes some weights under their own name: those must not be put back."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((160, 160)).astype(np.float32) for name in "abcd"}
    text = """agraph (float[1,160,160] x) => (float[1,160,160] y, float[1,160] z) {
        t = Transpose<perm=[0,2,1]>(x) u = Add(t, a) y = Transpose<perm=[0,2,1]>(u) v = MatMul(y, b)
        m = ReduceMean<keepdims=0>(v, one) n = Gemm<transB=1>(m, c) o = Gemm(n, c) z = Gemm(o, d)
    }"""
    model = graph_of(text, one=np.array([1]), **weights)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    outside = open_model(path).model
    assert all(external_data.is_external(w) for w in outside.graph.initializer if w.name in weights)
    x = {"x": rng.standard_normal((1, 160, 160)).astype(np.float32)}
    expected = onnxruntime.InferenceSession(path).run(None, x)
    for given in (model, outside):
        found = Session(given).run(x)
        for one, other in zip(found.values(), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "packed"), [(4, False), (200, True)])
def test_a_classifier_s_weights_are_not_packed(monkeypatch, channels, packed):
    text = """net (float[N,3,8,8] x) => (float[N,400] y)
        { c = Conv(x, k) d = Conv(c, l) p = GlobalMaxPool(d) f = Flatten(p) y = Gemm(f, w) }"""
    shapes = {"k": (channels, 3, 3, 3), "l": (200, channels, 3, 3), "w": (200, 400)}
    model = graph_of(text, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    made, options = [], door._options
    monkeypatch.setattr(door, "_options", lambda *a: made.append(options(*a)) or made[-1])
    Session(model)
    if packed:
        with pytest.raises(RuntimeError):  # it was not set
            made[0].get_session_config_entry("session.disable_prepacking")
    else:
        assert made[0].get_session_config_entry("session.disable_prepacking") == "1"
