"""What the figures were taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "onnx", "torch", "captum", "grad-cam", "timm")


def machine(device: str = "cpu") -> dict[str, object]:
    """The processor, or the accelerator, and the versions."""
    processor = _accelerator() if device == "cuda" else _processor()
    return {"processor": processor, "cores": os.cpu_count(), "versions": _versions()}


def _accelerator() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
