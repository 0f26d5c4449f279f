"""The runtime, behind one door: the only file that imports onnxruntime.

The runtime falls back to the CPU without an error when CUDA's libraries are missing; a `Session`
never does: "cuda" is an error then, and "auto" says what it took and why.
"""

import contextlib
import ctypes
import io
import json
import logging
import re
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import EncodeError

from analyzer.errors import (
    AnalyzerError,
    MissingProviderError,
    ModelRejectedError,
    UsageError,
)
from analyzer.sources import external_data
from analyzer.weights import Weight, set_apart

try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingProviderError(
        f"onnxruntime does not load ({error}); pip install onnxruntime"
    ) from error

Device = Literal["cpu", "cuda", "auto"]
Optimization = Literal["none", "basic", "extended", "all"]
Precision = Literal["float32", "tf32", "float16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
"""Of products on CUDA: TF32 and float16 are meant for speed, right to about three digits."""
BATCH_SIZE: Final = 8
"""Images in a run where nobody says otherwise."""
Arrays = Mapping[str, npt.NDArray[np.generic]]

_log = logging.getLogger(__name__)

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
# The exhaustive search would tune again for every batch size.
CUDA_OPTIONS: Final = MappingProxyType({"cudnn_conv_algo_search": "HEURISTIC"})
_LEVELS: Final = MappingProxyType(
    {
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
)
_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_KERNEL: Final = "_kernel_time"
_FATAL, _WARNING = 4, 2
_logger_lock = threading.Lock()


class Session:
    """One model loaded into the runtime.

    Attributes:
        device: "cpu" or "cuda", whichever really runs.
        provider: The execution provider's name.
        reason: Why this device, where "auto" had to choose.
        settings: Runtime version, provider and every option that can change numbers.
        outputs: Names of the outputs.
    """

    def __init__(
        self,
        model: onnx.ModelProto | bytes,
        device: Device = "cpu",
        optimization: Optimization = "all",
        threads: int | None = None,
        weights: Mapping[str, onnx.TensorProto] | None = None,
        profile: bool = False,
        precision: Precision = "float32",
    ) -> None:
        """Load the model.

        Args:
            model: The model or its bytes; at most 2 GiB, without the weights that
                `sources.external_data` left in their files.
            device: "cuda" is an error where CUDA does not load; "auto" prefers CUDA.
            optimization: The runtime's graph optimisation level.
            threads: Threads inside one operator; None leaves the choice to the runtime.
            weights: The weights that the model was written without, by name.
            profile: Measure each node, for `node_times`.
            precision: Whether CUDA may compute float32 products in TF32; float16 is up to the
                model (`graph_rewrites.lower`).

        Raises:
            MissingProviderError: CUDA was asked for and does not load.
            ModelRejectedError: The runtime refuses the model.
        """
        options = _options(optimization, threads)
        self._scratch = TemporaryDirectory() if profile else None
        if self._scratch is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._scratch.name) / "profile")
        self._weights: list[object] = []
        if not isinstance(model, bytes):
            model, apart = set_apart(model, weights)
            self._weights = _hand_over(apart, options, device)
        data = model if isinstance(model, bytes) else _serialise(model)
        cuda = {**CUDA_OPTIONS, "use_tf32": str(int(precision == "tf32"))}
        self._session, self.reason = _open(data, options, device, cuda)
        _return_memory()
        self.provider: str = self._session.get_providers()[0]
        self.device: Literal["cpu", "cuda"] = "cuda" if self.provider == _CUDA else "cpu"
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        self.settings: Mapping[str, object] = MappingProxyType(
            {
                "onnxruntime": ort.__version__,
                "provider": self.provider,
                "reason": self.reason,
                "graph_optimization": optimization,
                "set_denormal_as_zero": True,
                **(cuda if self.device == "cuda" else {}),
            }
        )

    def run(
        self, inputs: Arrays, outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Args:
            inputs: Arrays by input name.
            outputs: Names to compute; None computes all.

        Raises:
            AnalyzerError: The runtime failed, for want of memory for example.
        """
        names = list(self.outputs if outputs is None else outputs)
        try:
            results = self._session.run(names, dict(inputs))
        except Exception as error:
            raise AnalyzerError(f"the runtime failed on {self.provider}: {_tidy(error)}") from error
        return dict(zip(names, results, strict=True))

    def run_size(self, picture: Sequence[int], size: int | None) -> int:
        """How many images one run takes, `size` at most; see `SpecializedSession.run_size`."""
        return size or BATCH_SIZE

    def run_each(self, batches: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """Run the model on several batches, one after the other.

        Raises:
            AnalyzerError: See `run`.
        """
        return [self.run(inputs) for inputs in batches]

    def node_times(self) -> list["NodeTime"]:
        """What every node of the optimised graph took in a run, of a session opened to profile.

        The session stops measuring.
        """
        if self._scratch is None:
            raise ValueError("the session was not opened with profile=True")
        with self._scratch:
            events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        self._scratch = None
        times: dict[tuple[str, str, str], list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
                facts = event["args"]
                name = event["name"].removesuffix(_KERNEL)
                key = name, facts["op_name"], facts.get("provider", "")
                times.setdefault(key, []).append(event["dur"] / 1e6)
        return [NodeTime(*key, statistics.median(seconds)) for key, seconds in times.items()]


@dataclass(frozen=True)
class NodeTime:
    """The time of one node.

    Attributes:
        name: Of the node in the optimised graph.
        operator: Its operator.
        provider: Where it ran.
        seconds: Of one run, the median.
    """

    name: str
    operator: str
    provider: str
    seconds: float


@dataclass(frozen=True)
class Settled:
    """A device that really loads, its provider, why it was taken, and how precise it is to be."""

    device: Literal["cpu", "cuda"]
    provider: str
    reason: str
    precision: Precision = "float32"


def settle(device: str, precision: str = "float32") -> Settled:
    """Turn "cpu", "cuda" or "auto" into a device that really runs, with a model of one node.

    Raises:
        UsageError: Another word, or a precision that only CUDA has.
        MissingProviderError: CUDA was asked for and does not load.
    """
    if device not in ("cpu", "cuda", "auto"):
        raise UsageError(f"unknown device {device!r}; known: cpu, cuda, auto")
    named = next((known for known in PRECISIONS if known == precision), None)
    if named is None:
        raise UsageError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if device == "cpu":
        settled = Settled("cpu", _CPU, "as asked", named)
    else:
        session = Session(_tiny_model(), "cuda" if device == "cuda" else "auto")
        settled = Settled(session.device, session.provider, session.reason, named)
    if settled.device == "cpu" and named != "float32":
        raise UsageError(f"precision {precision!r} needs device 'cuda'; this is the CPU")
    return settled


@dataclass(frozen=True)
class ProviderReport:
    """What the installed runtime can really do.

    Attributes:
        version: The runtime's version.
        available: Providers that the runtime was built with.
        loads: Providers that were tried with a tiny model, and whether they ran it.
        note: Why CUDA does not load, or "".
    """

    version: str
    available: tuple[str, ...]
    loads: Mapping[str, bool]
    note: str


def provider_report() -> ProviderReport:
    """Try the CPU and CUDA with a model of one node; nothing is printed."""
    tiny = _tiny_model()
    loads = {_CPU: Session(tiny, "cpu").provider == _CPU}
    note = ""
    try:
        loads[_CUDA] = Session(tiny, "cuda").provider == _CUDA
    except MissingProviderError as error:
        loads[_CUDA], note = False, str(error)
    return ProviderReport(ort.__version__, tuple(ort.get_available_providers()), loads, note)


def _options(optimization: Optimization, threads: int | None) -> Any:  # noqa: ANN401
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only: they are raised as well, and said once
    options.graph_optimization_level = _LEVELS[optimization]
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Workers that spin on after a run take the cores from the next session's: a seventh of the time
    # and more where predictions and explanations take turns, and nothing is lost where they do not.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _open(
    data: bytes,
    options: Any,  # noqa: ANN401
    device: Device,
    cuda: Mapping[str, str],
) -> tuple[Any, str]:
    """The runtime's session and why it runs where it runs."""
    if device == "cpu":
        return _create(data, options, [_CPU]), "as asked"
    failure = _cuda_missing()
    if not failure:
        with _silence():
            session = _create(data, options, [(_CUDA, dict(cuda)), _CPU])
        if session.get_providers()[0] == _CUDA:
            return session, "as asked" if device == "cuda" else "CUDA, because it loads"
        failure = "CUDA's libraries do not load"
    if device == "cuda":
        raise MissingProviderError(
            f"device 'cuda': {failure}; pip install 'onnx-analyzer[cuda]', check the driver, "
            "or use device 'cpu'"
        )
    _log.info("device 'auto' took the CPU: %s", failure)
    return _create(data, options, [_CPU]), f"CPU, because {failure}"


def _cuda_missing() -> str:
    if _CUDA not in ort.get_available_providers():
        return f"the installed onnxruntime {ort.__version__} was built without CUDA"
    # The runtime prints what it cannot preload; a failure shows below, when the session opens.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ort.preload_dlls()
    return ""


def _create(data: bytes, options: Any, providers: list[Any]) -> Any:  # noqa: ANN401
    try:
        return ort.InferenceSession(data, sess_options=options, providers=providers)
    except Exception as error:
        raise ModelRejectedError(f"the runtime refuses the model: {_tidy(error)}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the runtime's default logger off stderr while a provider is tried."""
    with _logger_lock:
        ort.set_default_logger_severity(_FATAL)
        try:
            yield
        finally:
            ort.set_default_logger_severity(_WARNING)


def _serialise(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except (ValueError, EncodeError) as error:
        raise ModelRejectedError(
            "the model needs more than 2 GiB in one message; keep its weights in a file beside it "
            "(external data)"
        ) from error


def _hand_over(weights: Mapping[str, Weight], options: Any, device: Device) -> list[object]:  # noqa: ANN401
    """Tell the runtime where the weights are, with as few copies as it can do with.

    What lies in a file it reads there, what does not it is given and copies, since it may transpose
    or reorder weights under their own name. Factors of a Gemm it leaves alone: those it is given
    to compute with, uncopied, which only a CPU session can. Where they are most of the weights,
    they belong to a classifier, which sees a row per image; packed for many rows they would be in
    memory again, once for each direction, for nothing: VGG-16 needs half as much without, and is as
    fast.

    Returns:
        What must live as long as the session.
    """
    if any(weight.file for weight in weights.values()):
        options.add_session_config_entry(_FOLDER, external_data.ROOT)
    make = ort.OrtValue.ortvalue_from_numpy_with_onnx_type
    factors = [weight for weight in weights.values() if weight.multiplied]
    given, kept = {}, list[object]()
    for name, weight in weights.items():
        computed_with = weight.file and weight.multiplied and device == "cpu"
        if weight.file and not computed_with:
            continue
        value = make(weight.array, weight.tensor.data_type)
        kept += [weight.array, value]
        if computed_with:
            options.add_initializer(name, value)
        else:
            given[name] = value
    options.add_external_initializers(list(given), list(given.values()))
    if 2 * sum(each.size for each in factors) > sum(each.size for each in weights.values()):
        options.add_session_config_entry("session.disable_prepacking", "1")
    return kept


def _return_memory() -> None:
    """Give back what was freed while a session opened; the C library of Linux would keep it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _tidy(error: Exception) -> str:
    """The runtime's message without its error-code prefix."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return text if len(text) <= 300 else text[:297] + "..."


def _tiny_model() -> onnx.ModelProto:
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "tiny", value[:1], value[1:])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
