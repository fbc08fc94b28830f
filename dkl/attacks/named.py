"""PGD attacks that have names, as tables of adversarial training use them: ``pgd-K`` and ``cw-K``.

Both take K steps of eps/4 from a uniform start. PGD raises the cross-entropy (Madry et al. 2018), "CW" the margin
max_{i≠y} z_i − z_y, the loss of Carlini and Wagner (2017) without its floor; above zero an image is misclassified.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks.pgd import pgd
from dkl.threat import Norm, parse_steps

Perturb = Callable[..., Tensor]
"""Images ``[B, ...]`` and labels ``[B]`` -> adversarial images."""


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the best other class of ``logits[B, C]`` is above that of ``labels[B]``: ``[B]``."""
    own = labels.unsqueeze(1)
    others = logits.scatter(1, own, float("-inf"))
    return others.amax(1) - logits.gather(1, own).squeeze(1)


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pgd": lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
    "cw": lambda logits, labels: margin(logits, labels).sum(),
}


def named_attack(model: nn.Module, name: str, *, norm: Norm, eps: float, seed: int) -> Perturb:
    """The attack ``name``, ``pgd-K`` or ``cw-K``, on ``model``; every call starts from the noise that ``seed`` fixes.

    It is called with images, labels and, where another start is wanted, that.
    Raises ValueError on any other name.
    """
    parsed = parse_steps(name)
    if parsed is None:
        raise ValueError(f"{name!r} is neither pgd-K nor cw-K")
    objective, steps = parsed
    loss = _LOSSES[objective]

    def perturb(x: Tensor, y: Tensor, start: Tensor | None = None) -> Tensor:
        return pgd(
            model,
            x,
            lambda logits: loss(logits, y),
            eps=eps,
            step_size=eps / 4,
            steps=steps,
            norm=norm,
            start=start,
            generator=torch.Generator(x.device).manual_seed(seed),
        )

    return perturb
