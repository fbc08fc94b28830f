"""The official IKL training step for CIFAR-100 without AWP, transcribed plainly. Nothing of ``dkl`` is used.

Slow by design, as the official code is: the attack computes the natural logits anew in every step, with a graph and
with parameters that want gradients, and the losses are pairwise. It is what ``dkl``'s step is compared with, and what
the benchmark times. Source: ``train_dkl_cifar100.py`` at jiequancui/DKL c5e8ad2.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.oracles import pairwise_ikl


@dataclass(kw_only=True)
class OfficialTraining:
    """Trains ``model`` with ``optimizer``; ``generator`` draws the attack's noise, ``eps`` is in [0, 1] pixel units.

    The class prior has the dtype of the model. As in the official code, a class that an epoch never showed turns its
    row of the prior into NaN.
    """

    model: nn.Module
    optimizer: Optimizer
    generator: torch.Generator
    num_classes: int
    eps: float
    step_size: float
    steps: int
    ce_weight: float = 5.0
    wmse_weight: float = 20.0
    temperature: float = 4.0
    sigma: float = 0.001

    def __post_init__(self) -> None:
        dtype = next(self.model.parameters()).dtype
        self.prior = torch.ones(self.num_classes, self.num_classes, dtype=dtype) / self.num_classes
        self.sums = torch.zeros_like(self.prior)

    def perturb(self, images: Tensor, weights: Tensor) -> Tensor:
        """Adversarial images that raise IKL at weights (1, 1), in eval mode, from an unprojected Gaussian start."""
        self.model.eval()
        adversarial = images + self.sigma * torch.randn(images.shape, generator=self.generator, dtype=images.dtype)
        for _ in range(self.steps):
            adversarial = adversarial.detach().requires_grad_()
            loss = pairwise_ikl(self.model(images), self.model(adversarial), weights, 1.0, 1.0)
            (gradient,) = torch.autograd.grad(loss, [adversarial])
            adversarial = adversarial.detach() + self.step_size * torch.sign(gradient)
            adversarial = torch.min(torch.max(adversarial, images - self.eps), images + self.eps)
            adversarial = torch.clamp(adversarial, 0.0, 1.0)
        return adversarial

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One step on ``images[B, C, H, W]`` in [0, 1] and ``labels[B]``; returns the loss before it."""
        one_hot = F.one_hot(labels, self.num_classes).to(self.prior.dtype)
        weights = one_hot @ self.prior
        adversarial_images = self.perturb(images, weights)
        self.model.train()
        adversarial, natural = self.model(adversarial_images), self.model(images)
        self.sums = self.sums + one_hot.t() @ F.softmax(natural.detach() / self.temperature, dim=1)
        robust = pairwise_ikl(natural, adversarial, weights, self.wmse_weight, self.ce_weight)
        loss = F.cross_entropy(natural, labels) + robust
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def epoch(self, batches: Iterable[tuple[Tensor, ...]]) -> float:
        """All ``batches``, which must show every class, then the prior's turn; returns the mean loss of an image."""
        total, seen = 0.0, 0
        for images, labels, *_ in batches:
            total += self.step(images, labels) * len(labels)
            seen += len(labels)
        self.prior = self.sums / self.sums.sum(dim=1, keepdim=True)
        self.sums = torch.zeros_like(self.prior)
        return total / seen


@contextmanager
def train_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """The images that ``model`` is given in train mode, in order: of each step the adversarial, then the natural."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        if module.training:
            seen.append(args[0].detach().clone())

    hook = model.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def counted_forwards(model: nn.Module) -> Iterator[list[int]]:
    """The batch size of every forward pass of ``model``, in order."""
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        yield sizes
    finally:
        hook.remove()


def differences(
    ours: nn.Module, run_ours: Callable[[], float], official: nn.Module, run_official: Callable[[], float]
) -> dict[str, float]:
    """Largest |Δ| that two trainings leave: of the images trained on, the loss they return, weights and buffers."""
    with train_inputs(ours) as our_images, train_inputs(official) as official_images:
        losses = run_ours(), run_official()
    if len(our_images) != len(official_images):
        raise ValueError(f"{len(our_images)} training forwards against {len(official_images)}")

    def largest(ours: Iterable[Tensor], official: Iterable[Tensor]) -> float:
        return max(float((a.double() - b.double()).detach().abs().max()) for a, b in zip(ours, official, strict=True))

    return {
        "images": largest(our_images, official_images),
        "loss": abs(losses[0] - losses[1]),
        "weights": largest(ours.parameters(), official.parameters()),
        "buffers": largest(ours.buffers(), official.buffers()),
    }
