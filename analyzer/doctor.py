"""Is this installation fit to explain models? Looked up without importing what may be broken.

Whatever may hang, crash or write to the process's stderr (a provider's driver, OpenCV) is tried in
a child process: `doctor` has to survive what it diagnoses.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PACKAGES = (
    "onnx-analyzer",
    "onnx",
    "onnx-graphsurgeon",
    "numpy",
    "pillow",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "click",
    "jinja2",
)
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
OPTIONAL = ("opencv-python", "opencv-python-headless", *RUNTIMES)
CHILD_TIMEOUT_S = 120

_PROVIDERS = """
import json
from analyzer.session import provider_report
report = provider_report()
print(json.dumps({"loads": dict(report.loads), "note": report.note}))
"""
_OPENCV = "import cv2, json; print(json.dumps({'version': cv2.__version__}))"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_CUDA_LIBRARY = "capi/libonnxruntime_providers_cuda.so"
_NOT_FOUND = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, and what to do.

    `blocking` is True where models cannot be explained at all until it is mended.
    """

    what: str
    remedy: str
    blocking: bool


@dataclass(frozen=True)
class Diagnosis:
    """What is installed, what loads, and what is wrong with it.

    Attributes:
        python: version and implementation.
        platform: operating system and machine.
        packages: version of each distribution, None where it is missing.
        providers: whether each execution provider that explanations use really loads.
        missing_libraries: shared libraries that CUDA needs and the loader does not find.
        opencv: version, or the one-line reason why it does not load.
        findings: what is wrong, the worst first.
    """

    python: str
    platform: str
    packages: Mapping[str, str | None]
    providers: Mapping[str, bool]
    missing_libraries: tuple[str, ...]
    opencv: str
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether models can be explained here."""
        return not any(finding.blocking for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the verdict included."""
        return {**asdict(self), "healthy": self.healthy}


@dataclass(frozen=True)
class _Child:
    """What a child process answered on stdout, or None, and what it wrote on stderr."""

    answer: Mapping[str, Any] | None
    talk: str

    @property
    def reason(self) -> str:
        lines = [line.strip() for line in self.talk.splitlines() if line.strip()]
        return lines[-1] if lines else "no answer"


def diagnose(*, need_cuda: bool = False) -> Diagnosis:
    """Look at the installation, without touching any model.

    Args:
        need_cuda: a CUDA provider that does not load then counts as blocking.
    """
    packages = {name: _version(name) for name in PACKAGES}
    runtime, opencv = _ask(_PROVIDERS), _ask(_OPENCV)
    providers: dict[str, bool] = dict(runtime.answer["loads"]) if runtime.answer else {}
    missing = () if providers.get(_CUDA, False) else _missing_libraries()
    findings = [
        *_package_findings(packages),
        *_runtime_findings(runtime, missing, need_cuda),
        *_opencv_findings(opencv),
    ]
    return Diagnosis(
        python=f"{platform.python_version()} {platform.python_implementation()}",
        platform=f"{platform.system()} {platform.machine()}",
        packages=packages,
        providers=providers,
        missing_libraries=missing,
        opencv=str(opencv.answer["version"]) if opencv.answer else opencv.reason,
        findings=tuple(sorted(findings, key=lambda finding: not finding.blocking)),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ask(code: str) -> _Child:
    """Run `code` in a fresh interpreter; its last line of stdout is a JSON object."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Child(None, f"no answer within {CHILD_TIMEOUT_S} s")
    if done.returncode != 0:
        died = f"\nthe process died with code {done.returncode}" if done.returncode < 0 else ""
        return _Child(None, done.stderr + died)
    return _Child(json.loads(done.stdout.splitlines()[-1]), done.stderr)


def _package_findings(packages: Mapping[str, str | None]) -> list[Finding]:
    found = [
        Finding(f"{name} is not installed", f"pip install {name}", blocking=True)
        for name, version in packages.items()
        if version is None and name not in (*OPTIONAL, "onnx-analyzer")
    ]
    installed = [name for name in RUNTIMES if packages[name] is not None]
    if len(installed) > 1:
        found.append(
            Finding(
                "onnxruntime and onnxruntime-gpu are installed together and overwrite each other",
                "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu",
                blocking=True,
            )
        )
    return found


def _runtime_findings(runtime: _Child, missing: Sequence[str], need_cuda: bool) -> list[Finding]:
    reinstall = "pip install --force-reinstall onnxruntime-gpu"
    if runtime.answer is None:
        return [Finding(f"the runtime does not load: {runtime.reason}", reinstall, blocking=True)]
    found = []
    loads = runtime.answer["loads"]
    if not loads[_CPU]:
        found.append(Finding("the CPU provider does not load", reinstall, blocking=True))
    if not loads[_CUDA]:
        why = f"missing {', '.join(missing)}" if missing else runtime.answer["note"]
        what = f"CUDA does not load: {why}"
        remedy = "on a machine with an NVIDIA GPU, pip install 'onnx-analyzer[cuda]'"
        found.append(Finding(what, remedy, blocking=need_cuda))
    return found


def _missing_libraries() -> tuple[str, ...]:
    """What the runtime's CUDA library asks for and the system's loader cannot find (Linux only)."""
    runtime, loader = importlib.util.find_spec("onnxruntime"), shutil.which("ldd")
    if runtime is None or runtime.origin is None or loader is None:
        return ()
    library = Path(runtime.origin).parent / _CUDA_LIBRARY
    if not library.is_file():
        return ()
    done = subprocess.run([loader, library], capture_output=True, text=True, check=False)
    return tuple(_NOT_FOUND.findall(done.stdout))


def _opencv_findings(opencv: _Child) -> list[Finding]:
    if opencv.answer is not None:
        return []
    return [
        Finding(
            f"OpenCV does not load ({opencv.reason}); only smoothing and localization need it",
            "install the system's libGL (apt-get install libgl1), or "
            "pip install opencv-python-headless in its place",
            blocking=False,
        )
    ]
