"""Peak memory of forward and gradient, each contender in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONTENDERS = ("lowered", "PyTorch eager")
"""Not for networks without a PyTorch module: those have the first one only."""


def peak(title: str, exports: Path, contender: str, batch: int, threads: int) -> float:
    """The resident set of a process that does nothing else, at its highest, in MiB."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", title, str(exports), contender]
    done = subprocess.run(
        [*command, str(batch), str(threads)], check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def _lowered(title: str, exports: Path, batch: int, threads: int) -> None:
    """What a user's process does: load the file, explain."""
    del threads  # the runtime takes every core
    import numpy as np

    import analyzer
    from benchmarks.speed.networks import NETWORKS

    model = analyzer.load(NETWORKS[title].file(exports))
    images = [np.zeros((224, 224, 3), np.uint8)] * batch
    for _ in range(3):
        model.explain(images, method="gradient", target=0)


def _pytorch(title: str, exports: Path, batch: int, threads: int) -> None:
    """The network from its constructor: loading trained weights costs no less."""
    del exports
    import torch

    from benchmarks.speed.networks import NETWORKS
    from benchmarks.speed.torch_peers import input_gradient
    from tests.oracles.torchvision_door import import_torchvision

    zoo, _, name = NETWORKS[title].member.partition("/")
    models = import_torchvision().models
    if zoo == "timm":
        import timm as models
    torch.set_num_threads(threads)
    create = models.create_model if zoo == "timm" else models.get_model
    net = create(name).eval().requires_grad_(False)
    x, target = torch.zeros(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.int64)
    for _ in range(3):
        input_gradient(net, x, target)


def _highest() -> float:
    """MiB; getrusage would count the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run = {"lowered": _lowered, "PyTorch eager": _pytorch}[sys.argv[3]]
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5]))
    print(_highest())
