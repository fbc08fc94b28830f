"""The PGD attacks that papers on adversarial training report by name: ``pgd-K`` and ``cw-K``.

Both take K steps of eps/4 from a uniform start. PGD raises the cross-entropy (Madry et al. 2018). "CW" raises the
margin max_{i≠y} z_i − z_y, the loss of Carlini and Wagner (2017) without its floor; an image with a positive margin is
misclassified.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks.pgd import pgd
from dkl.threat import Norm, parse_steps

Perturb = Callable[..., Tensor]
"""A function of images ``[B, ...]`` and labels ``[B]`` that returns adversarial images."""


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of another class minus that of the label, ``[B]``, for ``logits[B, C]`` and ``labels[B]``."""
    own = labels.unsqueeze(1)
    others = logits.scatter(1, own, float("-inf"))
    return others.amax(1) - logits.gather(1, own).squeeze(1)


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pgd": lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
    "cw": lambda logits, labels: margin(logits, labels).sum(),
}


def named_attack(model: nn.Module, name: str, *, norm: Norm, eps: float, seed: int, restarts: int = 1) -> Perturb:
    """Return the attack ``name``, ``pgd-K`` or ``cw-K``, on ``model``; ``eps`` in [0, 1] is in pixel units.

    Call it with images in [0, 1], labels and optionally a start. Every call draws the same noise, from ``seed``. Each
    of the ``restarts`` after the first draws new noise and attacks the images that are not fooled yet. Raises
    ValueError on any other name.
    """
    parsed = parse_steps(name)
    if parsed is None:
        raise ValueError(f"attack {name!r} is not known: write pgd-K or cw-K, such as pgd-20")
    objective, steps = parsed
    loss = _LOSSES[objective]

    def once(x: Tensor, y: Tensor, start: Tensor | None, generator: torch.Generator) -> Tensor:
        return pgd(
            model,
            x,
            lambda logits: loss(logits, y),
            eps=eps,
            step_size=eps / 4,
            steps=steps,
            norm=norm,
            start=start,
            generator=generator,
        )

    def perturb(x: Tensor, y: Tensor, start: Tensor | None = None) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(seed)
        result = once(x, y, start, generator)
        for _ in range(restarts - 1):
            with torch.no_grad():
                remaining = (model(result).argmax(1) == y).nonzero().squeeze(1)
            if not len(remaining):
                break
            result[remaining] = once(x[remaining], y[remaining], None, generator)
        return result

    return perturb
