"""Drop-in modules that keep their own class prior, for your own training loop."""

from torch import Tensor, nn

from dkl.losses.divergences import GKL, IKL
from dkl.losses.prior import ClassPrior


class _PriorLoss(nn.Module):
    """A class-weighted loss and its prior: call it with targets each step, and ``end_epoch()`` after each epoch."""

    def __init__(self, loss: IKL | GKL, num_classes: int, prior_temperature: float, prior_momentum: float) -> None:
        super().__init__()
        if prior_temperature <= 0:
            raise ValueError(f"prior_temperature={prior_temperature} must be above 0")
        self.loss = loss
        self.prior_temperature = prior_temperature
        self.prior = ClassPrior(num_classes, prior_momentum)

    def forward(self, natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of ``natural_logits[B, C]`` and ``adversarial_logits[B, C]`` with labels ``target[B]``.

        In training mode the natural predictions, softened by ``prior_temperature``, enter the prior of the next epoch.
        """
        if self.training:
            self.prior.observe(natural_logits, target, self.prior_temperature)
        return self.loss(natural_logits, adversarial_logits, weights=self.prior[target])

    def end_epoch(self) -> None:
        """Use this epoch's class means from now on. Without this call the weights stay uniform, as in epoch 1."""
        self.prior.end_epoch()

    def extra_repr(self) -> str:
        return f"{self.loss}, prior_temperature={self.prior_temperature}"


class IKLLoss(_PriorLoss):
    """IKL with its class prior; call ``end_epoch()`` once per epoch.

        criterion = IKLLoss(num_classes=100)
        loss = criterion(natural_logits, adversarial_logits, target)

    For distillation pass the teacher's logits first and the student's second. ``ce_temperature`` softens both sides of
    the cross-entropy (official ``--T`` 4 on CIFAR-100), ``prior_temperature`` the predictions that enter the prior.
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
    """GKL with its class prior, used as ``IKLLoss``; ``gamma`` smooths the class-wise weights."""

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
