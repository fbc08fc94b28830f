"""Averages of the weights over training, in ``torch.optim.swa_utils.AveragedModel``.

    average ← decay · average + (1 − decay) · weights

after every step or every epoch. The official ``swa.py`` computes such an average (decay 0.9, buffers included) from 200
checkpoints on disk. Updated during training, it has the same value and needs no files.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dkl.errors import UserError
from dkl.validation import FRACTION, check_fields


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """When and how fast the average follows the weights.

    ``per``: update after every ``step`` or ``epoch``. Before the share ``start`` of training, in [0, 1), the average
    is a copy of the weights. ``decay`` is in [0, 1). With ``ramp`` it is min(decay, (1 + d)/(10 + d)), where d counts
    the updates since the start (Gowal et al. 2020); with ``equal`` it is d/(d + 1), the mean of all since (SWA).
    ``buffers``: ``average`` averages BatchNorm's buffers too, ``copy`` takes those of the weights, ``estimate``
    computes them on natural training images at the end of training. The first update copies the weights; with
    ``from_initial`` the average starts from the initial ones. Raises UserError if a value is out of range.
    """

    per: Literal["step", "epoch"] = "epoch"
    decay: Annotated[float, FRACTION] = 0.9
    start: Annotated[float, FRACTION] = 0.0
    ramp: bool = False
    buffers: Literal["average", "copy", "estimate"] = "average"
    from_initial: bool = False
    equal: bool = False

    def __post_init__(self) -> None:
        if self.per not in ("step", "epoch") or self.buffers not in ("average", "copy", "estimate"):
            raise UserError(
                f"averaging.per={self.per} must be step or epoch, and averaging.buffers={self.buffers} must be "
                "average, copy or estimate"
            )
        check_fields(self, "averaging")

    def decay_at(self, done: int, total: int) -> float:
        """Return the decay of update ``done`` of ``total``, counted from 1; 0 copies the weights."""
        since = done - self.start * total
        # The official code starts averaging one update after ``start``, DM-Improves-AT (with its ramp) at ``start``.
        if since < 0 or (since == 0 and not self.ramp):
            return 0.0
        if self.equal:
            return int(since) / (int(since) + 1)
        return min(self.decay, (1 + since) / (10 + since)) if self.ramp else self.decay


class Average:
    """The running average of ``model`` by ``rule``."""

    def __init__(self, rule: Averaging, model: nn.Module) -> None:
        self.rule, self._decay = rule, 0.0
        # torch takes one averaging function for all updates; the decay of ours changes, so it is read at each call.
        blend = lambda *tensors: get_ema_multi_avg_fn(self._decay)(*tensors)  # noqa: E731
        self._average = AveragedModel(model, multi_avg_fn=blend, use_buffers=rule.buffers == "average")
        self._average.requires_grad_(False)
        if rule.from_initial:
            self._average.n_averaged.fill_(1)

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self._average.module

    @torch.no_grad()
    def update(self, model: nn.Module, done: int, total: int) -> None:
        """Add the weights of ``model`` after update ``done`` of ``total``, counted from 1."""
        self._decay = self.rule.decay_at(done, total)
        self._average.update_parameters(model)

    @property
    def updated(self) -> bool:
        """Whether there was an update; before the first one the average holds the initial weights."""
        return bool(self._average.n_averaged)

    def state_dict(self) -> dict[str, Any]:
        """Return averaged weights and buffers, under the names that they have in the model."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any], *, updated: bool = True) -> None:
        """Restore what ``state_dict`` returned, ``updated`` or before the first update, which copies the weights."""
        self.model.load_state_dict(state)
        if updated:
            self._average.n_averaged.fill_(1)  # with 0 the next update would copy the weights and lose the average
