r"""IKL and GKL as modules that keep their own class prior: the losses for your own training loop.

``help(IKLLoss)`` has the equation, all settings, and what to know about devices, processes and torch.compile.
"""

import math

import torch
from torch import Tensor, nn

from dkl.losses.base import ClassPrior
from dkl.losses.divergences import GKL, IKL
from dkl.losses.wmse import Reduction, check_reduction, gap_mse_and_cross_entropy


class _PriorLoss(nn.Module):
    """A class-weighted loss and its prior: call it with targets each step, and ``end_epoch()`` after each epoch."""

    def __init__(
        self,
        loss: IKL | GKL,
        num_classes: int,
        prior_temperature: float,
        prior_momentum: float,
        reduction: Reduction,
        ignore_index: int | None,
    ) -> None:
        super().__init__()
        if not 0 < prior_temperature < math.inf:
            raise ValueError(f"prior_temperature={prior_temperature} must be above 0 and finite")
        check_reduction(reduction)
        self.loss, self.prior_temperature = loss, prior_temperature
        self.reduction, self.ignore_index = reduction, ignore_index
        self.prior = ClassPrior(num_classes, prior_momentum)

    def forward(self, natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor) -> Tensor:
        """The loss of ``natural_logits[B, C, ...]`` and ``adversarial_logits[B, C, ...]``, labels ``target[B, ...]``.

        In training mode the natural predictions, softened by ``prior_temperature``, enter the prior of the next epoch.
        Raises ValueError if shapes, dtypes or devices do not fit, and on a CPU if a label is out of range.
        """
        ignored = self.ignore_index
        labels = target if ignored is None else target.where(target.ne(ignored), 0)
        self._check(natural_logits, adversarial_logits, labels)
        if self.training:
            self.prior.observe(natural_logits, target, self.prior_temperature, ignored)
        plain = natural_logits.ndim == 2 and ignored is None and self.reduction == "mean"
        if plain and not torch.compiler.is_compiling():
            return self.loss(natural_logits, adversarial_logits, weights=self.prior[labels])
        counted = torch.ones_like(target, dtype=torch.bool) if ignored is None else target.ne(ignored)
        value = gap_mse_and_cross_entropy(
            natural_logits,
            adversarial_logits,
            self._weights(labels, counted),
            wmse_weight=self.loss.wmse_weight,
            ce_weight=self.loss.ce_weight,
            ce_temperature=self.loss.ce_temperature,
            reduction=self.reduction if ignored is None else "none",
            dense=True,
        )
        if ignored is None:
            return value
        rows = value.where(counted, 0)
        if self.reduction == "none":
            return rows
        return rows.sum() / (counted.sum().clamp(min=1) if self.reduction == "mean" else 1)

    def _weights(self, labels: Tensor, counted: Tensor) -> Tensor:
        """The weights ``[B, C, ...]`` of each row's wMSE; rows that are not ``counted`` do not change the others'."""
        return self.prior[labels].movedim(-1, 1)

    def _check(self, natural_logits: Tensor, adversarial_logits: Tensor, labels: Tensor) -> None:
        """Raise ValueError if shapes, dtypes or devices do not fit; labels are compared with C on a CPU only."""
        name, C = type(self).__name__, len(self.prior.table)
        shape, rows = tuple(natural_logits.shape), tuple(labels.shape)
        if len(shape) < 2 or adversarial_logits.shape != natural_logits.shape:
            raise ValueError(f"{name}: logits are {shape} and {tuple(adversarial_logits.shape)}, both must be [B, C]")
        if shape[1] != C:
            raise ValueError(f"{name}: logits of {shape[1]} classes, but num_classes={C}: make it with {shape[1]}")
        expected = shape[:1] + shape[2:]
        if labels.dtype not in (torch.int64, torch.int32) or rows != expected:
            fix = "; target.argmax(1) turns one-hot rows into labels" if rows == shape else ""
            raise ValueError(f"{name}: target is {labels.dtype} {rows}, it must be int64 labels {expected}{fix}")
        devices = {str(tensor.device) for tensor in (natural_logits, adversarial_logits, labels, self.prior.table)}
        if len(devices) > 1:
            fix = f"move the loss too, by criterion.to({str(natural_logits.device)!r})"
            raise ValueError(f"{name}: logits, target and class prior are on {', '.join(sorted(devices))}: {fix}")
        # On a GPU the comparison would wait for the device in every step, and torch.compile would break the graph;
        # there, indexing checks the labels.
        if torch.compiler.is_compiling() or labels.device.type != "cpu" or not labels.numel():
            return
        if not 0 <= int(labels.min()) <= int(labels.max()) < C:
            low, high = int(labels.min()), int(labels.max())
            fix = f"; or ignore {low} by ignore_index={low}" if self.ignore_index is None and low < 0 else ""
            raise ValueError(f"{name}: labels run from {low} to {high}, they must be from 0 to {C - 1}{fix}")

    def end_epoch(self) -> None:
        """Use this epoch's class means from now on. Without this call the weights stay uniform, as in epoch 1.

        With torch.distributed they are the means of all processes, each of which must call this.
        """
        self.prior.end_epoch()

    def extra_repr(self) -> str:
        return f"{self.loss}, prior_temperature={self.prior_temperature}"


class IKLLoss(_PriorLoss):
    """Improved KL divergence between a natural and an adversarial prediction, or a teacher's and a student's.

    With natural logits m, adversarial logits n, weights w (see below), S = Σ w and μ = Σ w (m − n) / S, per sample

        wmse_weight · ½ S Σ w (m − n − μ)²  +  ce_weight · (−Σ softmax(m/T) log softmax(n/T))

    The first term is the paper's weighted MSE over all pairs of classes. Its gradient reaches m and n. The second term
    is a cross-entropy with soft labels, which get no gradient. w is the row of the class prior that belongs to the
    sample's label: the mean natural prediction for this class in the epoch before, and uniform in the first epoch. Call
    ``end_epoch()`` once per epoch. In ``eval()`` mode nothing enters the prior.

    Defaults are those of the paper on CIFAR-100. Add the cross-entropy of the labels yourself.

    num_classes         C, the number of classes
    wmse_weight         weight of the weighted MSE: the paper's alpha, official flag ``--beta``; tables print alpha/4
    ce_weight           weight of the cross-entropy: the paper's beta, official flag ``--alpha``
    ce_temperature      T: softens both sides of the cross-entropy; 4 in the paper's distillation, without a factor T²
    prior_temperature   softens the predictions that enter the prior: the paper's tau, official flag ``--T``
    prior_momentum      m: the prior becomes m · new + (1 − m) · old
    reduction           "mean" or "sum" over samples, or "none": the loss of every sample
    ignore_index        label of samples or pixels that do not count; "none" gives them 0. Default: all count

    Logits are ``[B, C]`` with labels ``[B]``, or dense: ``[B, C, H, W]`` with labels ``[B, H, W]``. The loss of no
    samples is 0, with a gradient of 0. All arithmetic is in float32 or float64, also under autocast.

    Devices. Move the module to the device of the logits. ``to(torch.bfloat16)`` and ``half()`` leave the prior in
    float32. Its tensors are in ``state_dict()``: save them with the model's.
    Processes. Each sums the predictions of its samples, and ``end_epoch()`` adds the sums of all processes; all must
    call it. It does not matter whether the loss is inside a DistributedDataParallel module.
    Compile. ``torch.compile(criterion, fullgraph=True)`` works. Labels out of range are then found by indexing.
    Distillation. The teacher's logits come first. On CIFAR-100 the official code has sample-wise weights, so no prior:
    ``dkl.losses.IKL(wmse_weight=8, ce_weight=1, ce_temperature=4, sample_temperature=100, weighting="sample")``.

    >>> import torch
    >>> criterion = IKLLoss(num_classes=100)
    >>> natural, adversarial = torch.zeros(8, 100), torch.zeros(8, 100, requires_grad=True)
    >>> loss = criterion(natural, adversarial, torch.arange(8))
    >>> loss.backward()
    >>> criterion.end_epoch()  # after the last batch of each epoch
    >>> f"{loss.item():.3f}"  # 5 log 100
    '23.026'
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
        reduction: Reduction = "mean",
        ignore_index: int | None = None,
    ) -> None:
        loss = IKL(wmse_weight=wmse_weight, ce_weight=ce_weight, ce_temperature=ce_temperature)
        super().__init__(loss, num_classes, prior_temperature, prior_momentum, reduction, ignore_index)


class GKLLoss(_PriorLoss):
    """Generalized KL divergence (arXiv 2503.08038): ``IKLLoss`` with weights that are smoothed and normalized.

    The weights w of ``IKLLoss`` are replaced by v = w^gamma, and the weighted MSE is divided over the whole batch. With
    S_i = Σ v_i the loss of B samples is

        wmse_weight · Σ_i ½ S_i Σ v_i (m_i − n_i − μ_i)² / Σ_i S_i²  +  ce_weight · mean_i (−Σ softmax(m_i/T) log …)

    gamma       0: all pairs of classes count alike; 1: the weights of IKL; official flag ``--gamma``

    All else is as in ``IKLLoss``, see there. The sample losses of ``reduction="none"`` have the loss as their mean.
    Several processes normalize over their own samples each.

    >>> import torch
    >>> GKLLoss(num_classes=10)(torch.zeros(4, 10), torch.zeros(4, 10), torch.arange(4))  # 4 log 10
    tensor(9.2103)
    """

    loss: GKL

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
        reduction: Reduction = "mean",
        ignore_index: int | None = None,
    ) -> None:
        loss = GKL(wmse_weight=wmse_weight, ce_weight=ce_weight, gamma=gamma, ce_temperature=ce_temperature)
        super().__init__(loss, num_classes, prior_temperature, prior_momentum, reduction, ignore_index)

    def _weights(self, labels: Tensor, counted: Tensor) -> Tensor:
        # The wMSE is quadratic in the weights, so dividing them by a root divides it: GKL is IKL with these weights.
        v = super()._weights(labels, counted).pow(self.loss.gamma)
        pairs = v.sum(1).square().where(counted, 0).sum()
        return v * (counted.sum() / torch.where(pairs > 0, pairs, 1)).sqrt()
