"""Adversarial weight perturbation (Wu et al. 2020), on the model itself.

    v = γ · ‖w‖ · g / ‖g‖        for every weight tensor w with more than one dimension, norms over the whole tensor

g is the gradient of the training loss. Training differentiates at w + v, and takes the same v off again after the
optimiser's step. The official code finds v by a step of SGD on a copy of the model; its learning rate cancels, so the
gradient on the model itself, with BatchNorm's buffers left alone, gives the same v without the copy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dkl.attacks import batch_statistics
from dkl.distributed import sum_over_ranks
from dkl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AWP:
    """Perturbs weights by ``gamma`` times their norm from epoch ``start``, counted from 1; ``gamma=0`` is off."""

    gamma: float = 0.005
    start: int = 10

    def __post_init__(self) -> None:
        if self.gamma < 0 or self.start < 0:
            raise UserError(f"task.awp.gamma={self.gamma} and task.awp.start={self.start} must not be negative")

    @contextmanager
    def perturbed(
        self, model: nn.Module, loss: Callable[[], Tensor], *, epoch: int, share: float = 1.0
    ) -> Iterator[Tensor | None]:
        """Weights of ``model`` that raise ``loss()`` inside, and what the body made of them without v afterwards.

        ``loss`` is called once, in train mode with BatchNorm's buffers left alone. It is the mean over this process's
        ``share`` of the batch; gradients are summed over processes. Yields None; where the loss or v is not finite it
        leaves the weights alone and yields a loss that is not.
        """
        if not self.gamma or epoch < self.start:
            yield None
            return
        named = model.named_parameters()
        weights: list[Tensor] = [w for name, w in named if "weight" in name and w.ndim > 1 and w.requires_grad]
        change = self._change(model, weights, loss, share)
        sizes = torch.stack([part.norm() for part in change])
        if not torch.isfinite(sizes).all():
            yield sizes.sum()
            return
        with torch.no_grad():
            torch._foreach_add_(weights, change)
        torch.clear_autocast_cache()  # it holds the weights as they were
        try:
            yield None
        finally:
            with torch.no_grad():
                torch._foreach_sub_(weights, change)
            torch.clear_autocast_cache()

    def _change(
        self, model: nn.Module, weights: list[Tensor], loss: Callable[[], Tensor], share: float
    ) -> list[Tensor]:
        """v, one tensor a weight."""
        with batch_statistics(model):
            value = loss() * share
        with torch.autocast(value.device.type, enabled=False):
            gradients = list(torch.autograd.grad(value, weights))
        sum_over_ranks(gradients)
        with torch.no_grad():
            for place, weight in enumerate(weights):
                gradient = gradients[place]
                tiny = torch.finfo(gradient.dtype).tiny
                gradients[place] = gradient * (self.gamma * weight.norm() / gradient.norm().clamp(min=tiny))
        return gradients
