"""The attacks an evaluation can be made of, by name, and the suites that have names of their own."""

import torch
from pyautoattack import AutoAttack
from torch import nn

from dkl.attacks import Perturb, named_attack
from dkl.errors import UserError
from dkl.threat import AUTOATTACK, Norm, parse_steps

PACKAGE_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}


def targets(num_classes: int) -> int:
    """How many other classes apgd-t and fab-t aim at: AutoAttack's nine, or all there are."""
    return min(9, num_classes - 1)


def passes(name: str, num_classes: int) -> int:
    """About how many forward passes ``name`` takes for a batch that it does not fool: for progress bars."""
    if stepped := parse_steps(name):
        return stepped[1] + 1
    aims = targets(num_classes)
    return {"apgd-ce": 102, "apgd-t": 102 * aims, "fab-t": 206 * aims, "square": 5001}[name]


def check_classes(names: list[str], num_classes: int) -> None:
    """Raise UserError where apgd-t cannot run: its loss compares four logits."""
    if "apgd-t" in names and num_classes < 4:
        others = ",".join(name for name in AUTOATTACK if name != "apgd-t")
        raise UserError(f"apgd-t needs 4 classes, this model has {num_classes}; choose attacks=[{others}]")


def make_attacks(
    names: list[str],
    model: nn.Module,
    *,
    norm: Norm,
    eps: float,
    seed: int,
    device: torch.device,
    num_classes: int = 10,
) -> dict[str, Perturb]:
    """Each named attack on ``model``, reseeded with ``seed`` at every call as AutoAttack does at every batch."""
    check_classes(names, num_classes)
    package = AutoAttack(model, norm=PACKAGE_NORMS[norm], eps=eps, seed=seed, device=device, version="standard")
    package.apgd.loss = "ce"
    package.fab.targeted = True
    package.apgd_targeted.n_target_classes = package.fab.n_target_classes = targets(num_classes)
    known: dict[str, Perturb] = {
        "apgd-ce": package.apgd.perturb,
        "apgd-t": package.apgd_targeted.perturb,
        "fab-t": package.fab.perturb,
        "square": package.square.perturb,
    }
    quick = [name for name in names if parse_steps(name)]
    known |= {name: named_attack(model, name, norm=norm, eps=eps, seed=seed) for name in quick}
    return {name: known[name] for name in names}
