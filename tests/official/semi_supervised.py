"""One semi-supervised step of Table 16 as the official code takes it, written plainly: loops, pairs of classes, AdamW.

Nothing of ``dkl`` is used. Source: DKL's fork of USB at jiequancui/DKL (algorithms fixmatch and meanteacher, the
consistency losses, the optimizer with layer decay, the cosine schedule).
"""

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """−log of the label's probability, per sample."""
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    return torch.stack([-row[label].log() for row, label in zip(probabilities, labels, strict=True)])


def hard(weak: Tensor, strong: Tensor) -> Tensor:
    return cross_entropies(strong, weak.max(1).indices)


def soft(weak: Tensor, strong: Tensor) -> Tensor:
    target = torch.softmax(weak, 1).detach()
    return -(target * torch.log_softmax(strong, 1)).sum(1)


def mse(weak: Tensor, strong: Tensor) -> Tensor:
    return (torch.softmax(strong, 1) - torch.softmax(weak, 1).detach()).pow(2).mean(1)


def ikl(ce_weight: float, wmse_weight: float):  # type: ignore[no-untyped-def]
    """ce · soft + wmse · ¼ΣΣ w_j w_k (Δweak − Δstrong)², w = softmax(weak); the wMSE detaches neither weak nor w."""

    def loss(weak: Tensor, strong: Tensor) -> Tensor:
        wmse = []
        for m, n in zip(weak, strong, strict=True):
            w = torch.softmax(m, 0)
            gaps = (m[:, None] - m[None, :]) - (n[:, None] - n[None, :])
            wmse.append(0.25 * (w[:, None] * w[None, :] * gaps**2).sum())
        return ce_weight * soft(weak, strong) + wmse_weight * torch.stack(wmse)

    return loss


def rate(step: int, total: int = 204_800, warmup: int = 5_120, peak: float = 5e-4) -> float:
    """The rate of the iteration ``step``, counted from 0."""
    if step < warmup:
        return peak * step / warmup
    return peak * max(0.0, math.cos(7 / 16 * math.pi * (step - warmup) / (total - warmup)))


def layer_scale(name: str, depth: int) -> float:
    """0.5 per layer below the head: the last block and the final norm, the other blocks, patches and positions."""
    if name.startswith("head"):
        return 1.0
    if name.startswith("norm"):
        return 0.5
    below = depth - int(name.split(".")[1]) if name.startswith("blocks") else depth + 1
    return float(0.5**below)


@dataclass
class Trainer:
    """A student, its average, and AdamW with weight decay 5e-4 except on vectors, positions and the class token."""

    model: nn.Module
    depth: int
    loss: object
    mean_teacher: bool
    threshold: float = 0.95
    decay: float = 0.999
    step: int = 0
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.model)

    def train(self, images: Tensor, labels: Tensor, weak: Tensor, strong: Tensor, at: int) -> float:
        """One iteration at the schedule's position ``at``; returns the loss."""
        if self.mean_teacher:
            logits = self.model(images)
            with torch.no_grad():
                of_weak = self.average(weak)
            of_strong = self.model(strong)
        else:
            logits, of_weak, of_strong = self.model(torch.cat([images, weak, strong])).split(
                [len(images), len(weak), len(strong)]
            )
        mask = (torch.softmax(of_weak.detach(), 1).max(1).values >= self.threshold).double()
        self.masks.append(mask)
        loss = cross_entropies(logits, labels).mean() + (mask * self.loss(of_weak, of_strong)).mean()  # type: ignore[operator]
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        self.step += 1
        with torch.no_grad():
            for (name, weight), gradient in zip(self.model.named_parameters(), gradients, strict=True):
                self.update(name, weight, gradient, rate(at) * layer_scale(name, self.depth))
            for averaged, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                averaged.copy_(self.decay * averaged + (1 - self.decay) * weight)
        return loss.item()

    def update(self, name: str, weight: Tensor, gradient: Tensor, lr: float) -> None:
        """AdamW (Loshchilov & Hutter 2019) with betas 0.9 and 0.999."""
        first, second = self.moments.get(name, (torch.zeros_like(weight), torch.zeros_like(weight)))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        self.moments[name] = first, second
        spared = weight.ndim <= 1 or name in ("pos_embed", "cls_token")
        weight.mul_(1 - lr * (0 if spared else 5e-4))
        unbiased = (second / (1 - 0.999**self.step)).sqrt() + 1e-8
        weight.sub_(lr * first / (1 - 0.9**self.step) / unbiased)
