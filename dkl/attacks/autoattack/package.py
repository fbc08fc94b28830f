"""Calls the attacks of AutoAttack's package, which seed torch's global generators."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

_Perturb = Callable[[Tensor, Tensor], Tensor]


def keeping_generators(perturb: _Perturb, device: torch.device) -> _Perturb:
    """Wrap ``perturb(x, y)`` so that the global generators of the CPU and of ``device`` are afterwards as before."""
    devices = [device] if device.type == "cuda" else []  # the package seeds no others

    @functools.wraps(perturb)
    def kept(x: Tensor, y: Tensor) -> Tensor:
        with torch.random.fork_rng(devices):
            return perturb(x, y)

    return kept
