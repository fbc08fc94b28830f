"""Drop-in modules that keep their own class prior, for training loops that are not this project's."""

import torch
from torch import Tensor, nn

from dkl.losses.divergences import GKL, IKL
from dkl.losses.prior import ClassPrior


class _PriorLoss(nn.Module):
    """A class-weighted loss with its prior: call it with targets each step, ``end_epoch()`` after each epoch."""

    def __init__(self, loss: IKL | GKL, num_classes: int, prior_temperature: float, prior_momentum: float) -> None:
        super().__init__()
        if prior_temperature <= 0:
            raise ValueError(f"prior_temperature must be above 0, not {prior_temperature}")
        self.loss = loss
        self.prior_temperature = prior_temperature
        self.prior = ClassPrior(num_classes, prior_momentum)

    def forward(self, natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of ``natural_logits[B, C]`` against ``adversarial_logits[B, C]`` with labels ``target[B]``.

        In training mode the natural predictions, softened by ``prior_temperature``, enter the prior of the next epoch.
        """
        weights = self.prior[target]
        if self.training:
            with torch.no_grad():
                self.prior.accumulate((natural_logits.detach().float() / self.prior_temperature).softmax(-1), target)
        return self.loss(natural_logits, adversarial_logits, weights)

    def end_epoch(self) -> None:
        """Put the epoch's class means into use; without it every epoch is weighted as the first, uniformly."""
        self.prior.end_epoch()

    def extra_repr(self) -> str:
        return f"{self.loss}, prior_temperature={self.prior_temperature}"


class IKLLoss(_PriorLoss):
    """``IKLLoss(num_classes=100)(natural_logits, adversarial_logits, target)``; call ``end_epoch()`` once an epoch.

    For distillation pass the teacher's logits first and the student's second; ``ce_temperature`` softens both sides of
    its cross-entropy (official ``--T`` 4 on CIFAR-100), ``prior_temperature`` what enters the prior.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        wmse_weight: float = 20.0,
        ce_weight: float = 5.0,
        ce_temperature: float = 1.0,
        prior_temperature: float = 4.0,
        prior_momentum: float = 1.0,
    ) -> None:
        loss = IKL(wmse_weight=wmse_weight, ce_weight=ce_weight, ce_temperature=ce_temperature)
        super().__init__(loss, num_classes, prior_temperature, prior_momentum)


class GKLLoss(_PriorLoss):
    """As ``IKLLoss``, with GKL's smoother weights: ``GKLLoss(num_classes=100, gamma=0.4)``."""

    def __init__(
        self,
        num_classes: int,
        *,
        wmse_weight: float = 20.0,
        ce_weight: float = 4.0,
        gamma: float = 0.4,
        ce_temperature: float = 1.0,
        prior_temperature: float = 1.0,
        prior_momentum: float = 1.0,
    ) -> None:
        loss = GKL(wmse_weight=wmse_weight, ce_weight=ce_weight, gamma=gamma, ce_temperature=ce_temperature)
        super().__init__(loss, num_classes, prior_temperature, prior_momentum)
