"""Averages of the weights over training, kept while it runs, in ``torch.optim.swa_utils.AveragedModel``.

    average ← decay · average + (1 − decay) · weights

after every step or every epoch. The official code writes 200 checkpoints and folds them into such an average (decay
0.9, buffers included, ``swa.py``); kept running, it is the same without the files.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dkl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """When and how fast the average follows the weights.

    ``per`` step or epoch. Until the share ``start`` of training is over the average is a copy of the weights. With
    ``ramp`` the decay is min(decay, (1 + d)/(10 + d)), d updates after the start (Gowal et al. 2020). BatchNorm's
    buffers are averaged (``average``), the weights' own (``copy``), or estimated anew at the end of training on natural
    training images (``estimate``).
    """

    per: Literal["step", "epoch"] = "epoch"
    decay: float = 0.9
    start: float = 0.0
    ramp: bool = False
    buffers: Literal["average", "copy", "estimate"] = "average"

    def __post_init__(self) -> None:
        if self.per not in ("step", "epoch") or self.buffers not in ("average", "copy", "estimate"):
            raise UserError(f"averaging.per={self.per} is step or epoch, averaging.buffers average, copy or estimate")
        if not 0 <= self.decay < 1 or not 0 <= self.start < 1:
            raise UserError(f"averaging.decay={self.decay} and averaging.start={self.start} must lie in [0, 1)")

    def decay_at(self, done: int, total: int) -> float:
        """The decay of update ``done``, counted from 1, of ``total``; 0 copies the weights."""
        since = done - self.start * total
        if since < 0 or (since == 0 and not self.ramp):
            return 0.0
        return min(self.decay, (1 + since) / (10 + since)) if self.ramp else self.decay


class Average:
    """The running average of ``model`` under ``rule``; the first update copies it."""

    def __init__(self, rule: Averaging, model: nn.Module) -> None:
        self.rule, self._decay = rule, 0.0
        self._average = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=rule.buffers == "average")
        self._average.requires_grad_(False)

    def _blend(self, averaged: Any, current: Any, count: Tensor | int) -> None:
        get_ema_multi_avg_fn(self._decay)(averaged, current, count)

    @property
    def model(self) -> nn.Module:
        """The network with averaged weights."""
        return self._average.module

    @torch.no_grad()
    def update(self, model: nn.Module, done: int, total: int) -> None:
        """Follow ``model`` after update ``done`` of ``total``."""
        self._decay = self.rule.decay_at(done, total)
        self._average.update_parameters(model)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and buffers, with the model's own names."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave, after at least one update."""
        self.model.load_state_dict(state)
        self._average.n_averaged.fill_(1)
