"""The attacks of an evaluation by name, and what each costs. Suites of several attacks are named in ``dkl.threat``."""

from functools import partial
from typing import NamedTuple

import torch
from pyautoattack import AutoAttack
from torch import nn

from dkl.attacks import Perturb, named_attack
from dkl.attacks.autoattack import apgd_ce, apgd_targeted, fab_targeted, square
from dkl.errors import UserError
from dkl.threat import AUTOATTACK, Norm, parse_steps

PACKAGE_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
"""Maps our names of norms to AutoAttack's."""


class AttackCost(NamedTuple):
    """Forward passes and input gradients that an attack computes for an image it does not fool."""

    forward: int
    gradients: int

    @property
    def passes(self) -> int:
        """The cost in forward passes: an input gradient with frozen parameters costs about as much as one."""
        return self.forward + self.gradients


AUTOATTACK_COSTS = {
    "apgd-ce": AttackCost(102, 101),
    "apgd-t": AttackCost(102, 101),
    "fab-t": AttackCost(200, 100),
    "square": AttackCost(5003, 0),
}
"""Counted; those of the targeted attacks are per target class."""


def target_classes(num_classes: int) -> int:
    """The number of target classes of apgd-t and fab-t: AutoAttack's nine, or all other classes if there are fewer."""
    return min(9, num_classes - 1)


def attack_cost(name: str, num_classes: int) -> AttackCost:
    """The approximate cost of the attack ``name`` per image; for progress bars and estimates."""
    if stepped := parse_steps(name):
        return AttackCost(stepped[1], stepped[1])
    forward, gradients = AUTOATTACK_COSTS[name]
    targets = target_classes(num_classes) if name.endswith("-t") else 1
    return AttackCost(forward * targets, gradients * targets)


def check_classes(names: list[str], num_classes: int) -> None:
    """Raise UserError if apgd-t is named but cannot run: its loss compares four logits."""
    if "apgd-t" in names and num_classes < 4:
        others = ",".join(name for name in AUTOATTACK if name != "apgd-t")
        raise UserError(f"apgd-t needs at least 4 classes, this model has {num_classes}; use attacks=[{others}]")


def _package_attacks(
    model: nn.Module, *, norm: Norm, eps: float, seed: int, device: torch.device, targets: int
) -> dict[str, Perturb]:
    """The attacks of standard AutoAttack as its authors wrote them."""
    package = AutoAttack(model, norm=PACKAGE_NORMS[norm], eps=eps, seed=seed, device=device, version="standard")
    # The package sets these in its own loop, which ours replaces.
    package.apgd.loss = "ce"
    package.fab.targeted = True
    package.apgd_targeted.n_target_classes = package.fab.n_target_classes = targets
    return {
        "apgd-ce": package.apgd.perturb,
        "apgd-t": package.apgd_targeted.perturb,
        "fab-t": package.fab.perturb,
        "square": package.square.perturb,
    }


def make_attacks(
    names: list[str],
    model: nn.Module,
    *,
    norm: Norm,
    eps: float,
    seed: int,
    device: torch.device,
    num_classes: int = 10,
    package: bool = False,
) -> dict[str, Perturb]:
    """Create the named attacks on ``model``. Raises UserError if one cannot run with so few classes.

    Every call of an attack, and so every batch, starts from ``seed`` again, as in AutoAttack. A batch's result
    therefore does not depend on the batches before it, and an evaluation can be resumed at any batch. With ``package``,
    AutoAttack's attacks are the authors' code, which fools the same images and is slower.
    """
    check_classes(names, num_classes)
    targets = target_classes(num_classes)
    known: dict[str, Perturb] = {
        "apgd-ce": partial(apgd_ce, model, norm=norm, eps=eps, seed=seed),
        "apgd-t": partial(apgd_targeted, model, norm=norm, eps=eps, seed=seed, targets=targets),
        "fab-t": partial(fab_targeted, model, norm=norm, eps=eps, targets=targets),
        "square": partial(square, model, norm=norm, eps=eps, seed=seed),
    }
    if package:
        known = _package_attacks(model, norm=norm, eps=eps, seed=seed, device=device, targets=targets)
    stepped = [name for name in names if parse_steps(name)]
    known |= {name: named_attack(model, name, norm=norm, eps=eps, seed=seed) for name in stepped}
    return {name: known[name] for name in names}
