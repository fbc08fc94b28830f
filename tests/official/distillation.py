"""The official distillation step, transcribed plainly: teacher, pairwise losses, warm-up, class prior, SGD.

Nothing of ``dkl`` is used. Source: the distillers and ``trainer.py`` of the official CIFAR-100 code (v1 for
IKL, v2 for GKL) at jiequancui/DKL c5e8ad2, which builds on mdistiller, whose KD and DKD are here as well. As there, the
prior starts uniform, is summed from the teacher's predictions and taken over at the end of an epoch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from tests.official.oracles import pairwise_gaps

Divergence = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Student logits, teacher logits, labels and prior rows ``[B, C]`` -> a scalar."""


def soft_ce(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy to the teacher's softened prediction, without T²."""
    return -(F.softmax(teacher / temperature, 1) * F.log_softmax(student / temperature, 1)).sum(1).mean()


def ikl(
    student: Tensor,
    teacher: Tensor,
    prior: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    t2: float,
    gi: bool,
    gamma: float | None = None,
) -> Tensor:
    """ALPHA · soft cross-entropy + BETA · wMSE of v1, or with ``gamma`` of v2; weights are ``prior`` under ``gi``."""
    weights = prior if gi else F.softmax(teacher / t2, 1)
    if gamma is not None:
        weights = weights**gamma
    pairs = torch.einsum("bj,bk->bjk", weights, weights)
    squares = (pairwise_gaps(teacher) - pairwise_gaps(student)) ** 2
    count = len(student) if gamma is None else pairs.sum()
    return alpha * soft_ce(student, teacher, temperature) + beta * 0.25 * (squares * pairs).sum() / count


def kd(student: Tensor, teacher: Tensor, *, weight: float, temperature: float) -> Tensor:
    """Hinton's KD."""
    log_q, p = F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return weight * F.kl_div(log_q, p, reduction="none").sum(1).mean() * temperature**2


def dkd(student: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float, beta: float, temperature: float) -> Tensor:
    """mdistiller's DKD: target against the rest, and the rest with the target masked by −1000."""
    mask = F.one_hot(labels, student.shape[1]).bool()

    def split(logits: Tensor) -> Tensor:
        probabilities = F.softmax(logits / temperature, 1)
        target = (probabilities * mask).sum(1, keepdim=True)
        return torch.cat([target, (probabilities * ~mask).sum(1, keepdim=True)], 1)

    tckd = F.kl_div(split(student).log(), split(teacher), reduction="sum") / len(labels)
    log_q = F.log_softmax(student / temperature - 1000.0 * mask, 1)
    p = F.softmax(teacher / temperature - 1000.0 * mask, 1)
    nckd = F.kl_div(log_q, p, reduction="sum") / len(labels)
    return temperature**2 * (alpha * tckd + beta * nckd)


@dataclass
class Trainer:
    """The official trainer of one student; the ``prior`` is that of the last epoch, ``sums`` those of this one."""

    student: nn.Module
    teacher: nn.Module
    divergence: Divergence
    classes: int
    ce_weight: float = 1.0
    warmup: int = 20
    t2: float = 4.0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.teacher.eval()
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False
        self.optimizer = SGD(self.student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.prior = torch.full((self.classes, self.classes), 1 / self.classes, dtype=torch.float64)

    def epoch(self, number: int, batches: Iterable[tuple[Tensor, Tensor]], lr: float) -> None:
        """One epoch, counted from 1, at learning rate ``lr``."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.student.train()
        sums = torch.zeros_like(self.prior)
        for images, labels in batches:
            teacher = self.teacher(images)
            student = self.student(images)
            hard = -F.log_softmax(student, 1)[torch.arange(len(labels)), labels].mean()
            warm = min(number / self.warmup, 1.0) if self.warmup else 1.0
            rows = torch.stack([self.prior[label] for label in labels])
            loss = self.ce_weight * hard + warm * self.divergence(student, teacher, labels, rows)
            self.losses.append(loss.item())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            for row, label in zip(F.softmax(teacher / self.t2, 1), labels.tolist(), strict=True):
                sums[label] += row
        self.prior = sums / sums.sum(1, keepdim=True)
