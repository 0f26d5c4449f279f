"""Random weights under which no part of a network is an identity, a constant or an explosion.

A network fresh from its constructor hides whole branches: layer scales start at 1e-6, the last
normalisation of a residual block at 0, position embeddings at 0, running statistics at (0, 1). A
gradient that is wrong there would not be seen. So what is constant is drawn, and the statistics of
every batch normalisation are measured on noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

MEASURED = 8  # images of noise from which the running statistics are taken
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TINY = 1e-3  # a layer scale at its start


def seeded(make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """The network that `make` builds, in eval mode, float32, nothing in place, with sane weights.

    Args:
        make: builds it; everything random in it is drawn from `seed`.
        shape: of one image, (C, H, W).
        seed: the global generator is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        for module in net.modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False
        _draw_constants(net)
        _measure_batch_norms(net, shape)
    return net.eval().requires_grad_(False)


@torch.no_grad()
def _draw_constants(net: nn.Module) -> None:
    """Give every constant parameter values around its constant."""
    for name, value in net.named_parameters():
        first = value.flatten()[:1]
        if not torch.all(value == first):
            continue
        start = float(first)
        if name.endswith("bias"):
            value.copy_(start + 0.1 * torch.randn_like(value))
        elif start == 0 and value.ndim > 1:  # an embedding
            value.copy_(0.02 * torch.randn_like(value))
        elif abs(start) <= _TINY:  # a layer scale, or a branch that begins switched off
            value.copy_(torch.empty_like(value).uniform_(0.2, 0.8))
        else:
            value.copy_(start * torch.empty_like(value).uniform_(0.3, 0.7))


def _measure_batch_norms(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Set running statistics from a batch of noise, layer after layer."""
    norms = [module for module in net.modules() if isinstance(module, _BATCH_NORMS)]
    if not norms:
        return
    net.eval()
    for norm in norms:
        norm.momentum = None  # cumulative: one pass gives this batch's statistics
        norm.reset_running_stats()
        norm.train()
    # Half of them of different brightness and contrast: where attention averages over all
    # positions, pictures of plain noise differ by next to nothing, and a normalisation would blow
    # that up. The other half plain noise, since that is what the network will see.
    bright, contrast = torch.randn(MEASURED, shape[0], 1, 1), 2 * torch.rand(MEASURED, 1, 1, 1)
    bright[::2], contrast[::2] = 0, 1
    with torch.no_grad():
        net(bright + contrast * torch.randn(MEASURED, *shape))
    for norm in norms:
        norm.eval()
