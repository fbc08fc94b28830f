"""Adversarial weight perturbation (Wu et al. 2020), on the model itself.

    v = γ · ‖w‖ · g / ‖g‖        for each weight tensor w with more than one dimension; norms over the whole tensor

g is the gradient of the training loss. Training differentiates at w + v, and subtracts the same v after the optimizer's
step.

The official code computes v from a copy of the model ("proxy"): one step of SGD with rate r on the negative loss moves
the copy by r·g, and v = γ · ‖w‖ · (r·g) / ‖r·g‖. The rate r cancels, so neither the copy nor its optimizer is needed:
the gradient at the model itself gives the same v. The one thing the copy protected are BatchNorm's buffers, which the
extra forward pass must not move; ``batch_statistics`` does that here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from dkl.attacks import batch_statistics
from dkl.runtime.distributed import sum_over_ranks
from dkl.validation import EPOCHS, Range, check_fields


@dataclass(frozen=True, kw_only=True)
class AWP:
    """Perturbs weights by ``gamma`` times their norm from epoch ``start`` on, counted from 1; ``gamma=0`` is off."""

    gamma: Annotated[float, Range(0, 10, usual=(0, 0.05))] = 0.005
    start: Annotated[int, EPOCHS] = 10

    def __post_init__(self) -> None:
        check_fields(self, "task.awp")

    @contextmanager
    def perturbed(
        self, model: nn.Module, loss: Callable[[], Tensor], *, epoch: int, share: float = 1.0
    ) -> Iterator[Tensor | None]:
        """Add v to the weights of ``model`` inside, and subtract it on exit; the optimizer's step remains.

        v raises ``loss()``. It is called once, in train mode with BatchNorm's buffers unchanged, and is the mean over
        this process's ``share`` of the batch; gradients are summed over processes. Yields None. If the loss or v is
        not finite, the weights stay as they are and a non-finite loss is yielded.
        """
        if not self.gamma or epoch < self.start:
            yield None
            return
        named = model.named_parameters()
        weights: list[Tensor] = [w for name, w in named if "weight" in name and w.ndim > 1 and w.requires_grad]
        change, sizes = self._change(model, weights, loss, share)
        if not torch.isfinite(sizes).all():
            yield sizes.sum()
            return
        with torch.no_grad():
            torch._foreach_add_(weights, change)
        # Autocast caches bfloat16 copies of weights, and does not notice that the weights have changed in place.
        torch.clear_autocast_cache()
        try:
            yield None
        finally:
            with torch.no_grad():
                torch._foreach_sub_(weights, change)
            torch.clear_autocast_cache()

    def _change(
        self, model: nn.Module, weights: list[Tensor], loss: Callable[[], Tensor], share: float
    ) -> tuple[list[Tensor], Tensor]:
        """v, one tensor per weight tensor, and the norms of its tensors."""
        with batch_statistics(model):
            value = loss() * share
        with torch.autocast(value.device.type, enabled=False):
            gradients = list(torch.autograd.grad(value, weights))
        sum_over_ranks(gradients, weights)
        with torch.no_grad():
            # One launch for the norms of all tensors, and one per tensor for the product.
            lengths = torch.stack(torch._foreach_norm(gradients))
            # A weight without gradient is not perturbed: 0 / tiny is 0, but 0 / 0 would be NaN.
            tiny = torch.finfo(lengths.dtype).tiny
            factors = self.gamma * torch.stack(torch._foreach_norm(weights)) / lengths.clamp(min=tiny)
            torch._foreach_mul_(gradients, list(factors))
        return gradients, factors * lengths
