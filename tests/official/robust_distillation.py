"""One step of each method of robust distillation, as its authors take it: sums over classes, one mean at the end.

Nothing of ``dkl`` is used. Written from the table of losses and attacks in robust_distillation.md: batchmean instead of
``nn.KLDivLoss()``, attacks in eval mode, no forward of images that no term uses. s, t and u are the logits of student,
teacher and naturally trained teacher; a trailing a means adversarial images, b their mirror images x − δ.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

LR, DECAY = 0.1, 2e-4


def probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    powers = torch.exp(logits / temperature)
    return powers / powers.sum(1, keepdim=True)


def kl(target: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Σ p·log(p/q) of each sample; the gradient reaches both sides."""
    p, q = probabilities(target, temperature), probabilities(student, temperature)
    return (p * torch.log(p / q)).sum(1)


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    p = probabilities(logits)
    return -torch.stack([torch.log(row[label]) for row, label in zip(p, labels, strict=True)])


@dataclass
class Forwards:
    """The logits of a step, computed when a loss asks for them, the student's in the order of ``order``."""

    networks: Mapping[str, nn.Module]
    images: Mapping[str, Tensor]
    labels: Tensor
    progress: tuple[int, int]
    found: dict[str, Tensor] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Tensor:
        if name not in self.found:
            network, kind = self.networks[name[0]], name[1:] or "x"
            logits = network(self.images[kind])
            self.found[name] = logits if name[0] == "s" else logits.detach()
        return self.found[name]

    @property
    def ramp(self) -> float:
        return self.progress[0] / self.progress[1]

    @property
    def trust(self) -> Tensor:
        p = probabilities(self.ta)
        return torch.stack([row[label] for row, label in zip(p, self.labels, strict=True)]) ** 0.1

    def igdm(self) -> Tensor:
        return self.ramp * kl(self.ta - self.tb, self.sa - self.sb)


def ard(f: Forwards) -> Tensor:
    return 30**2 * kl(f.t, f.sa, 30.0)


def rslad(f: Forwards) -> Tensor:
    return 5 / 6 * kl(f.t, f.sa) + 1 / 6 * kl(f.t, f.s)


def akd2(f: Forwards) -> Tensor:
    return ce(f.sa, f.labels) / 4 + kl(f.ta, f.sa) / 2 + kl(f.ua, f.sa) / 4


def iad1(f: Forwards) -> Tensor:
    loss = kl(f.t, f.sa)
    return loss + (1 - f.trust) * kl(f.s, f.sa) if f.progress[0] >= 60 else loss


def iad2(f: Forwards) -> Tensor:
    if f.progress[0] < 40:
        return akd2(f)
    guided = f.trust * kl(f.ta, f.sa) + (1 - f.trust) * kl(f.s, f.sa)
    return ce(f.sa, f.labels) / 4 + guided / 2 + kl(f.ua, f.sa) / 4


def adaad(f: Forwards) -> Tensor:
    return kl(f.ta, f.sa)


def adaiad(f: Forwards) -> Tensor:
    loss = 30**2 * kl(f.ta, f.sa, 30.0)
    return loss + (1 - f.trust) * kl(f.s, f.sa) if f.progress[0] >= 60 else loss


def saad(f: Forwards) -> Tensor:
    p = probabilities(f.ta)
    entropy = -(p * torch.log(p)).sum(1)
    w = 5 * (entropy - entropy.min())
    return w * (kl(f.ta, f.sa) + f.igdm())


def saad_c(f: Forwards) -> Tensor:
    p = probabilities(f.ta)
    entropy = -(p * torch.log(p)).sum(1)
    scaled = (entropy - entropy.min()) / (entropy.max() - entropy.min())
    return saad(f) + 0.2 * (1 - scaled) * kl(f.t, f.s)


def mtard(f: Forwards) -> Tensor:
    """The first step: the weights are ½, and both relative losses are 1."""
    return 0.5 * kl(f.ta, f.sa) + 0.5 * kl(f.u, f.s)


def balanced(losses: list[tuple[float, float]], rate: float) -> float:
    """MTARD's weight of the natural term after steps with these adversarial and natural losses."""
    natural = 0.5
    for adversarial_loss, natural_loss in losses:
        relative = [adversarial_loss / losses[0][0], natural_loss / losses[0][1]]
        natural = natural - rate * (natural - relative[1] / sum(relative))
    return natural


METHODS: dict[str, tuple[Callable[[Forwards], Tensor], str]] = {
    "ard": (ard, "labels"),
    "rslad": (rslad, "t"),
    "akd2": (akd2, "labels"),
    "iad1": (iad1, "labels"),
    "iad2": (iad2, "labels"),
    "adaad": (adaad, "ta"),
    "adaiad": (adaiad, "ta"),
    "ard_igdm": (lambda f: ard(f) + 5 * f.igdm(), "labels"),
    "rslad_igdm": (lambda f: rslad(f) + 10 * f.igdm(), "t"),
    "adaad_igdm": (lambda f: adaad(f) + 5 * f.igdm(), "ta"),
    "saad": (saad, "linearized"),
    "saad_c": (saad_c, "linearized"),
    "mtard": (mtard, "labels"),
}
"""The loss of each sample, and what the attack drives the student away from."""


def attacked(
    networks: Mapping[str, nn.Module], images: Tensor, labels: Tensor, start: Tensor, target: str, **how: Any
) -> Tensor:
    """``how["steps"]`` signed steps of ``how["step_size"]`` within ``how["eps"]``, in eval mode."""
    student, teacher = (copy.deepcopy(networks[name]).eval() for name in "st")
    x = images.clone().requires_grad_()
    at_label = torch.stack([row[label] for row, label in zip(teacher(x), labels, strict=True)])
    (slope,) = torch.autograd.grad(at_label.sum(), x)
    fixed, moving = teacher(images).detach(), start.clone()
    for _ in range(how["steps"]):
        moving = moving.detach().requires_grad_()
        if target == "labels":
            loss = ce(student(moving), labels)
        elif target == "linearized":
            rise = (slope * (moving - images)).sum((1, 2, 3))
            continued = [
                torch.where(torch.arange(len(row)) == y, row + r, row)
                for row, y, r in zip(fixed, labels, rise, strict=True)
            ]
            loss = kl(torch.stack(continued), student(moving))
        else:
            loss = kl(fixed if target == "t" else teacher(moving), student(moving))
        (gradient,) = torch.autograd.grad(loss.sum(), moving)
        moved = moving.detach() + how["step_size"] * torch.sign(gradient)
        moving = torch.max(torch.min(moved, images + how["eps"]), images - how["eps"]).clamp(0, 1)
    return moving.detach()


def step(
    method: str, networks: Mapping[str, nn.Module], images: Tensor, adversarial: Tensor, labels: Tensor, epoch: int
) -> float:
    """One step of SGD of the student ``networks["s"]`` in train mode, in ``epoch`` of 200; returns the loss."""
    networks["s"].train()
    kinds = {"a": adversarial, "b": images - (adversarial - images), "x": images}
    forwards = Forwards(networks, kinds, labels, (epoch, 200))
    forwards.sa  # noqa: B018  # BatchNorm sees the adversarial images first, then their mirror images
    if "igdm" in method or "saad" in method:
        forwards.sb  # noqa: B018
    loss = METHODS[method][0](forwards).mean()
    networks["s"].zero_grad()
    loss.backward()
    with torch.no_grad():
        for weight in networks["s"].parameters():
            if weight.grad is not None:
                weight -= LR * (weight.grad + DECAY * weight)
    return loss.item()
