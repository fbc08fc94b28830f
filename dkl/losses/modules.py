"""Drop-in modules that keep their own class prior, for your own training loop."""

import math

import torch
from torch import Tensor, nn

from dkl.losses.divergences import GKL, IKL
from dkl.losses.prior import ClassPrior


class _PriorLoss(nn.Module):
    """A class-weighted loss and its prior: call it with targets each step, and ``end_epoch()`` after each epoch."""

    def __init__(self, loss: IKL | GKL, num_classes: int, prior_temperature: float, prior_momentum: float) -> None:
        super().__init__()
        if not 0 < prior_temperature < math.inf:
            raise ValueError(f"prior_temperature={prior_temperature} must be above 0 and finite")
        self.loss = loss
        self.prior_temperature = prior_temperature
        self.prior = ClassPrior(num_classes, prior_momentum)

    def forward(self, natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of ``natural_logits[B, C]`` and ``adversarial_logits[B, C]`` with labels ``target[B]``.

        In training mode the natural predictions, softened by ``prior_temperature``, enter the prior of the next epoch.
        Raises ValueError if shapes, dtypes or devices do not fit, and on a CPU if a label is out of range.
        """
        self._check(natural_logits, adversarial_logits, target)
        if self.training:
            self.prior.observe(natural_logits, target, self.prior_temperature)
        return self.loss(natural_logits, adversarial_logits, weights=self.prior[target])

    def _check(self, natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor) -> None:
        """Raise ValueError if shapes, dtypes or devices do not fit; labels are compared with C on a CPU only."""
        name, C = type(self).__name__, len(self.prior.table)
        shape, labels = tuple(natural_logits.shape), f"{target.dtype} {tuple(target.shape)}"
        if len(shape) != 2 or adversarial_logits.shape != natural_logits.shape:
            raise ValueError(f"{name}: logits are {shape} and {tuple(adversarial_logits.shape)}, both must be [B, C]")
        if shape[1] != C:
            raise ValueError(f"{name}: logits of {shape[1]} classes, but num_classes={C}: make it with {shape[1]}")
        if target.dtype not in (torch.int64, torch.int32) or tuple(target.shape) != shape[:1]:
            fix = "; target.argmax(1) turns one-hot rows into labels" if tuple(target.shape) == shape else ""
            raise ValueError(f"{name}: target is {labels}, it must be int64 labels ({shape[0]},){fix}")
        devices = {str(tensor.device) for tensor in (natural_logits, adversarial_logits, target, self.prior.table)}
        if len(devices) > 1:
            fix = f"move the loss too, by criterion.to({str(natural_logits.device)!r})"
            raise ValueError(f"{name}: logits, target and class prior are on {', '.join(sorted(devices))}: {fix}")
        # On a GPU the comparison would wait for the device in every step; there, indexing checks the labels.
        if target.device.type == "cpu" and len(target) and not 0 <= int(target.min()) <= int(target.max()) < C:
            low, high = int(target.min()), int(target.max())
            raise ValueError(f"{name}: labels run from {low} to {high}, they must be from 0 to {C - 1}")

    def end_epoch(self) -> None:
        """Use this epoch's class means from now on. Without this call the weights stay uniform, as in epoch 1."""
        self.prior.end_epoch()

    def extra_repr(self) -> str:
        return f"{self.loss}, prior_temperature={self.prior_temperature}"


class IKLLoss(_PriorLoss):
    """IKL with its class prior; call ``end_epoch()`` once per epoch.

        criterion = IKLLoss(num_classes=100)
        loss = criterion(natural_logits, adversarial_logits, target)

    ``ce_temperature`` softens both sides of the cross-entropy, ``prior_temperature`` the predictions that enter the
    prior. For distillation pass the teacher's logits first; on CIFAR-100 the official code has sample-wise weights
    instead of a prior: ``IKL(weighting="sample")``.
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
