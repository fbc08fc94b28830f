"""The official adversarial training, transcribed plainly: attack, proxy AWP, class prior, SGD.

Nothing of ``dkl`` is used. Slow by design, as the official code is: the attack computes the natural logits anew in
every step, with a graph and with parameters that want gradients, AWP trains a second model, and the losses are
pairwise. It is what ``dkl``'s step is compared with, and what the benchmark times. Source: ``train_dkl_cifar10.py`` and
``train_dkl_cifar100.py`` (v1 for IKL, v2 for GKL), ``train_trades_cifar.py`` and ``utils_awp.py`` at jiequancui/DKL
c5e8ad2.
"""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD, Optimizer

from tests.official.oracles import pairwise_gkl, pairwise_ikl

PairLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Natural logits, adversarial logits and weights ``[B, C]`` -> a scalar."""


def kl(natural: Tensor, adversarial: Tensor, weights: Tensor, factor: float, reduction: str) -> Tensor:
    """KL as TRADES trains with it and attacks; it has no weights."""
    log_q, p = F.log_softmax(adversarial, dim=1), F.softmax(natural, dim=1)
    return factor * F.kl_div(log_q, p, reduction=reduction)


def high_budget(epoch: int, epochs: int) -> tuple[float, float, int]:
    """Radius, step size and steps of ``--train_budget high``, whose quarters are tests in a row: the last one wins."""
    radius, scale = 8 / 255 * (epoch / epochs), epochs / 200
    for quarter, share, count in ((50, 1.0, 2), (100, 2 / 3, 3), (150, 0.5, 4), (200, 0.5, 5)):
        if epoch <= int(quarter * scale):
            step_size, steps = share * radius, count
    return radius, step_size, steps


def ikl_rate(epoch: int, epochs: int) -> float:
    """The learning rate of the IKL and GKL scripts, without warm-up."""
    return 0.2 * 0.5 * (1 + math.cos(epoch / (epochs + 1) * math.pi))


def trades_rate(epoch: int, epochs: int) -> float:
    """The learning rate of the TRADES script."""
    return 0.2 * 0.5 * (1 + math.cos((epoch - 1) / epochs * math.pi))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the official scripts differ in, and the constants that tests and benchmarks change."""

    loss: PairLoss
    objective: PairLoss
    temperature: float = 4.0
    aug_weight: float = 1.0
    budget: Callable[[int, int], tuple[float, float, int]] = high_budget
    rate: Callable[[int, int], float] = ikl_rate
    awp_gamma: float = 0.005
    awp_warmup: int = 10


IKL_CIFAR100 = Recipe(
    loss=partial(pairwise_ikl, wmse_weight=20.0, ce_weight=5.0),
    objective=partial(pairwise_ikl, wmse_weight=1.0, ce_weight=1.0),
)
IKL_CIFAR10 = Recipe(
    loss=partial(pairwise_ikl, wmse_weight=20.0, ce_weight=4.0),
    objective=partial(pairwise_ikl, wmse_weight=0.0, ce_weight=1.0),
)
GKL_CIFAR100 = Recipe(
    loss=partial(pairwise_gkl, wmse_weight=20.0, ce_weight=4.0, gamma=0.4),
    objective=partial(pairwise_gkl, wmse_weight=1.0, ce_weight=1.0, gamma=1.0),
    temperature=1.0,
)
IKL_AUTOAUG = Recipe(
    loss=partial(pairwise_ikl, wmse_weight=20.0, ce_weight=4.0), objective=IKL_CIFAR100.objective, aug_weight=0.3
)
TRADES = Recipe(
    loss=partial(kl, factor=9.0, reduction="batchmean"),
    objective=partial(kl, factor=1.0, reduction="sum"),
    rate=trades_rate,
)


class DataParallel(nn.Module):
    """``nn.DataParallel`` on four GPUs: each takes a contiguous chunk of a batch; the first one's buffers are kept."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        first, *others = images.chunk(4)
        buffers = {name: value.clone() for name, value in self.module.named_buffers()}
        logits = [self.module(first)]
        for chunk in others:
            logits.append(functional_call(self.module, {name: value.clone() for name, value in buffers.items()}, chunk))
        return torch.cat(logits)


class ProxyAWP:
    """Weight perturbation by one step of ascent on a second model, which then lends its difference to the first."""

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self.model, self.proxy, self.gamma = model, copy.deepcopy(model), gamma
        self.optimizer = SGD(self.proxy.parameters(), lr=0.2)

    def difference(self, loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
        """By name, what to add ``gamma`` times to the weights so that ``loss(model)`` rises."""
        self.proxy.load_state_dict(self.model.state_dict())
        self.proxy.train()
        descent = -loss(self.proxy)
        self.optimizer.zero_grad()
        descent.backward()
        self.optimizer.step()
        found, moved = {}, self.proxy.state_dict()
        for name, weight in self.model.state_dict().items():
            if weight.ndim > 1 and "weight" in name:
                change = moved[name] - weight
                found[name] = weight.norm() / (change.norm() + 1e-20) * change
        return found

    @torch.no_grad()
    def add(self, difference: dict[str, Tensor], sign: int) -> None:
        """Perturb the model (``sign=1``) or take the perturbation off again (−1)."""
        for name, parameter in self.model.named_parameters():
            if name in difference:
                parameter.add_(sign * self.gamma * difference[name])


class OfficialTraining:
    """Trains ``model`` by ``recipe`` for ``epochs``, counted from 1; ``seed`` fixes the attack's noise.

    The class prior has the dtype of the model. As in the official code, a class that an epoch never showed turns its
    row of the prior into NaN.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, *, num_classes: int, epochs: int, seed: int) -> None:
        dtype = next(model.parameters()).dtype
        self.model, self.recipe, self.epochs = model, recipe, epochs
        self.optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4)
        self.awp = ProxyAWP(model, recipe.awp_gamma) if recipe.awp_gamma else None
        self.generator = torch.Generator().manual_seed(seed)
        self.prior = torch.ones(num_classes, num_classes, dtype=dtype) / num_classes
        self.sums = torch.zeros_like(self.prior)

    def perturb(self, images: Tensor, weights: Tensor, epoch: int) -> Tensor:
        """Adversarial images that raise the objective, in eval mode, from an unprojected Gaussian start."""
        eps, step_size, steps = self.recipe.budget(epoch, self.epochs)
        self.model.eval()
        adversarial = images + 0.001 * torch.randn(images.shape, generator=self.generator, dtype=images.dtype)
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            loss = self.recipe.objective(self.model(images), self.model(adversarial), weights)
            (gradient,) = torch.autograd.grad(loss, [adversarial])
            adversarial = adversarial.detach() + step_size * torch.sign(gradient)
            adversarial = torch.min(torch.max(adversarial, images - eps), images + eps)
            adversarial = torch.clamp(adversarial, 0.0, 1.0)
        return adversarial

    def robust_loss(self, natural: Tensor, adversarial: Tensor, weights: Tensor, views: int) -> Tensor:
        """The pair loss of the first view, plus ``aug_weight`` times that of the second if there are two."""
        if views == 1:
            return self.recipe.loss(natural, adversarial, weights)
        half = len(natural) // 2
        first = self.recipe.loss(natural[:half], adversarial[:half], weights[:half])
        return first + self.recipe.aug_weight * self.recipe.loss(natural[half:], adversarial[half:], weights[half:])

    def step(self, images: Tensor, labels: Tensor, views: int, epoch: int) -> float:
        """One step on ``images[V·B, C, H, W]`` in [0, 1] and ``labels[V·B]``; returns the loss it descends."""
        one_hot = F.one_hot(labels, len(self.prior)).to(self.prior.dtype)
        weights, first = one_hot @ self.prior, len(labels) // views
        adversarial_images = self.perturb(images, weights, epoch)
        self.model.train()

        def ascended(proxy: nn.Module) -> Tensor:
            natural, adversarial = proxy(images), proxy(adversarial_images)
            return F.cross_entropy(natural, labels) + self.recipe.loss(natural, adversarial, weights)

        awp = self.awp if epoch >= self.recipe.awp_warmup else None
        if awp:
            difference = awp.difference(ascended)
            awp.add(difference, 1)
        adversarial, natural = self.model(adversarial_images), self.model(images)
        softened = F.softmax(natural[:first].detach() / self.recipe.temperature, dim=1)
        self.sums = self.sums + one_hot[:first].t() @ softened
        loss = F.cross_entropy(natural, labels) + self.robust_loss(natural, adversarial, weights, views)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if awp:
            awp.add(difference, -1)
        return loss.item()

    def epoch(self, batches: Iterable[tuple], epoch: int) -> float:
        """All ``batches`` (images, labels, views …), then the prior's turn; returns the mean loss of an image."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(epoch, self.epochs)
        total, seen = 0.0, 0
        for images, labels, views, *_ in batches:
            total += self.step(images, labels, views, epoch) * len(labels)
            seen += len(labels)
        self.prior = self.sums / self.sums.sum(dim=1, keepdim=True)
        self.sums = torch.zeros_like(self.prior)
        return total / seen


@contextmanager
def trained_images(model: nn.Module, optimizer: Optimizer) -> Iterator[list[Tensor]]:
    """What ``model`` was given in its last two forwards before each update: the adversarial and the natural images."""
    last: deque[Tensor] = deque(maxlen=2)
    seen: list[Tensor] = []
    hooks = [
        model.register_forward_pre_hook(lambda _, args: last.append(args[0].detach().clone())),
        optimizer.register_step_pre_hook(lambda *_: seen.extend(last)),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def counted_forwards(*models: nn.Module) -> Iterator[list[int]]:
    """The batch size of every forward pass of ``models``, in order."""
    sizes: list[int] = []
    hooks = [model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0]))) for model in models]
    try:
        yield sizes
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Training:
    """A model, its optimizer, and a function that trains it and returns the loss."""

    model: nn.Module
    optimizer: Optimizer
    run: Callable[[], float]


def differences(ours: Training, official: Training) -> dict[str, float]:
    """Largest |Δ| that two trainings leave: of the images trained on, the loss they return, weights and buffers."""
    with trained_images(ours.model, ours.optimizer) as images:
        loss = ours.run()
    with trained_images(official.model, official.optimizer) as official_images:
        official_loss = official.run()
    if len(images) != len(official_images):
        raise ValueError(f"{len(images) // 2} updates against {len(official_images) // 2}")

    def largest(ours: Iterable[Tensor], official: Iterable[Tensor]) -> float:
        return max(float((a.double() - b.double()).detach().abs().max()) for a, b in zip(ours, official, strict=True))

    return {
        "images": largest(images, official_images),
        "loss": abs(loss - official_loss),
        "weights": largest(ours.model.parameters(), official.model.parameters()),
        "buffers": largest(ours.model.buffers(), official.model.buffers()),
    }
