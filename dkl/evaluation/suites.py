"""The attacks an evaluation can be made of, by name, and the suites that have names of their own."""

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pyautoattack import AutoAttack
from torch import Tensor, nn

from dkl.attacks import Norm, pgd
from dkl.errors import UserError
from dkl.records import AUTOATTACK

Perturb = Callable[[Tensor, Tensor], Tensor]
"""Images ``[B, ...]`` and labels ``[B]`` -> adversarial images."""

SUITES: dict[str, tuple[str, ...]] = {
    "standard": AUTOATTACK,
    "fast": ("apgd-ce", "apgd-t"),
    "pgd": ("pgd-20",),
}
"""``standard`` is AutoAttack. ``fast`` is its first two attacks, and is not called AutoAttack anywhere."""

PACKAGE_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}

_PGD = re.compile(r"pgd-(\d+)")


def parse_attacks(attacks: Any) -> list[str]:
    """Attack names of a suite's name, one attack's name, or a list of names. Raises UserError, with the choices."""
    names = list(SUITES.get(attacks, (attacks,))) if isinstance(attacks, str) else [str(name) for name in attacks]
    unknown = [name for name in names if name not in AUTOATTACK and not _PGD.fullmatch(name)]
    if unknown or not names or len(set(names)) != len(names):
        raise UserError(
            f"attacks={attacks} must be one of {', '.join(SUITES)}, or a list without repeats of "
            f"{', '.join(AUTOATTACK)}, pgd-K (K steps of eps/4)"
        )
    return names


def _pgd(model: nn.Module, steps: int, *, norm: Norm, eps: float, seed: int) -> Perturb:
    """PGD of ``steps`` steps of eps/4 on the cross-entropy, from a uniform start that ``seed`` fixes."""

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        return pgd(
            model,
            x,
            lambda logits: F.cross_entropy(logits, y, reduction="sum"),
            eps=eps,
            step_size=eps / 4,
            steps=steps,
            norm=norm,
            generator=torch.Generator(x.device).manual_seed(seed),
        )

    return perturb


def make_attacks(
    names: list[str], model: nn.Module, *, norm: Norm, eps: float, seed: int, device: torch.device
) -> dict[str, Perturb]:
    """Each named attack on ``model``, reseeded with ``seed`` at every call as AutoAttack does at every batch."""
    package = AutoAttack(model, norm=PACKAGE_NORMS[norm], eps=eps, seed=seed, device=device, version="standard")
    package.apgd.loss = "ce"
    package.fab.targeted = True
    known: dict[str, Perturb] = {
        "apgd-ce": package.apgd.perturb,
        "apgd-t": package.apgd_targeted.perturb,
        "fab-t": package.fab.perturb,
        "square": package.square.perturb,
    }
    steps = {name: int(found[1]) for name in names if (found := _PGD.fullmatch(name))}
    known |= {name: _pgd(model, count, norm=norm, eps=eps, seed=seed) for name, count in steps.items()}
    return {name: known[name] for name in names}
