"""The attacks of an evaluation by name, and what each costs. Suites of several attacks are named in ``dkl.threat``."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn

from dkl.attacks import Perturb, named_attack
from dkl.attacks.autoattack import apgd_ce, apgd_dlr, apgd_targeted, fab_targeted, square
from dkl.attacks.autoattack.package import keeping_generators
from dkl.errors import UserError
from dkl.threat import AUTOATTACK, AVERAGED, EvaluatedNorm, Norm, parse_restarts, parse_steps

PACKAGE_NORMS: dict[EvaluatedNorm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}
"""Maps our names of norms to AutoAttack's."""

AVERAGED_PASSES = 20
"""Passes whose gradients are averaged in the suite ``rand``."""


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
    base, times = parse_restarts(name.removeprefix("sample-"))
    if base in AVERAGED:
        base, times = base.removesuffix("-eot"), AVERAGED_PASSES
    if stepped := parse_steps(base):
        return AttackCost(stepped[1] * times, stepped[1] * times)
    if base == "fab":
        return AttackCost(200 * times, 100 * num_classes * times)
    forward, gradients = AUTOATTACK_COSTS[base.replace("-dlr", "-ce")]
    times *= target_classes(num_classes) if base.endswith("-t") else 1
    return AttackCost(forward * times, gradients * times)


_TWO = (2, "two logits")
_FEWEST_CLASSES = {"apgd-t": (4, "four logits"), "apgd-dlr": (3, "three logits"), "apgd-dlr-eot": (3, "three logits")}


_SMALLEST_SIDE = 5
"""Square begins with windows of a fifth of the image for L2 and L1."""


def check_classes(names: list[str], num_classes: int) -> None:
    """Raise UserError if a named attack cannot run because its loss compares more logits."""
    needed = {name: _FEWEST_CLASSES.get(parse_restarts(name)[0], _TWO) for name in names}
    refused = [name for name, (fewest, _) in needed.items() if num_classes < fewest]
    if refused:
        fewest, logits = needed[refused[0]]
        others = ",".join(name for name in AUTOATTACK if num_classes >= _FEWEST_CLASSES.get(name, _TWO)[0])
        advice = f"use attacks=[{others}]" if others else "give it one logit per class"
        raise UserError(
            f"{refused[0]} compares {logits}, so it needs at least {fewest} classes, this model has {num_classes}; "
            f"{advice}"
        )


def check_shape(names: list[str], norm: EvaluatedNorm, shape: Sequence[int]) -> None:
    """Raise UserError if Square cannot divide images of ``shape[C, H, W]`` into windows, as it does for L2 and L1."""
    squares = [name for name in names if parse_restarts(name.removeprefix("sample-"))[0] == "square"]
    if squares and norm != "linf" and min(shape[1:]) < _SMALLEST_SIDE:
        raise UserError(
            f"square for {PACKAGE_NORMS[norm]} needs images of at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels, "
            f"not {shape[1]} x {shape[2]}: use attacks=[apgd-ce,fab-t]"
        )


def _package_attack(
    name: str, model: nn.Module, *, norm: EvaluatedNorm, eps: float, seed: int, device: torch.device, targets: int
) -> Perturb:
    """An attack as AutoAttack's authors wrote it, with the settings of AutoAttack's suites."""
    base, restarts = parse_restarts(name)
    common: dict[str, Any] = {"norm": PACKAGE_NORMS[norm], "eps": eps, "seed": seed, "device": device}
    # For L1 AutoAttack shrinks the radius during the search, restarts apgd-ce and takes fewer targets.
    logger = logging.getLogger("auto-attack")
    searched = common | {"n_iter": 100, "use_largereps": norm == "l1", "logger": logger}
    if base in AVERAGED:
        loss = base.removeprefix("apgd-").removesuffix("-eot")
        return cast(Perturb, APGDAttack(model, loss=loss, eot_iter=AVERAGED_PASSES, **searched).perturb)
    if base in ("apgd-ce", "apgd-dlr"):
        several = 5 if norm == "l1" and restarts == 1 else restarts
        return cast(Perturb, APGDAttack(model, loss=base.removeprefix("apgd-"), n_restarts=several, **searched).perturb)
    if base == "apgd-t":
        classes = min(5, targets) if norm == "l1" else targets
        attack = APGDAttack_targeted(model, n_restarts=restarts, n_target_classes=classes, **searched)
        return cast(Perturb, attack.perturb)
    if base in ("fab", "fab-t"):
        targeted = {"targeted": base == "fab-t", "n_target_classes": targets}
        return cast(Perturb, FABAttack_PT(model, n_iter=100, n_restarts=restarts, **targeted, **common).perturb)
    settings = {"p_init": 0.8, "n_queries": 5000, "n_restarts": restarts, "resc_schedule": False}
    return cast(Perturb, SquareAttack(model, **settings, **common).perturb)


def _make_attack(
    name: str,
    model: nn.Module,
    *,
    norm: EvaluatedNorm,
    eps: float,
    seed: int,
    device: torch.device,
    targets: int,
    package: bool,
) -> Perturb:
    base, restarts = parse_restarts(name)
    if parse_steps(base):
        return named_attack(model, base, norm=cast(Norm, norm), eps=eps, seed=seed, restarts=restarts)
    own = cast(Norm, norm)  # for L1 the package's attacks are returned
    rewritten: dict[str, Perturb] = {
        "apgd-ce": partial(apgd_ce, model, norm=own, eps=eps, seed=seed),
        "apgd-dlr": partial(apgd_dlr, model, norm=own, eps=eps, seed=seed),
        "apgd-t": partial(apgd_targeted, model, norm=own, eps=eps, seed=seed, targets=targets),
        "fab-t": partial(fab_targeted, model, norm=own, eps=eps, targets=targets),
        "square": partial(square, model, norm=own, eps=eps, seed=seed),
    }
    if package or norm == "l1" or base not in rewritten or (restarts > 1 and not base.startswith("apgd")):
        package_attack = _package_attack(name, model, norm=norm, eps=eps, seed=seed, device=device, targets=targets)
        return keeping_generators(package_attack, device)
    return partial(rewritten[base], restarts=restarts) if restarts > 1 else rewritten[base]


def make_attacks(
    names: list[str],
    model: nn.Module,
    *,
    norm: EvaluatedNorm,
    eps: float,
    seed: int,
    device: torch.device,
    num_classes: int = 10,
    package: bool = False,
) -> dict[str, Perturb]:
    """Create the named attacks on ``model``. Raises UserError if one cannot run with so few classes.

    Every call of an attack, and so every batch, starts from ``seed`` again, as in AutoAttack. A batch's result
    therefore does not depend on the batches before it, and an evaluation can be resumed at any batch. With ``package``,
    AutoAttack's attacks are the authors' code, which fools the same images and is slower. That code also serves what
    was not rewritten: L1, ``fab``, restarts of fab-t and square, and mean gradients.
    """
    check_classes(names, num_classes)
    settings: dict[str, Any] = {"norm": norm, "eps": eps, "seed": seed, "device": device, "package": package}
    return {name: _make_attack(name, model, targets=target_classes(num_classes), **settings) for name in names}
