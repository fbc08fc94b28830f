"""AutoAttack's package: its own attacks with the settings of its suites, and what our attacks count as it does."""

import functools
import logging
from typing import Any, cast

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from dkl.attacks.pgd import Perturb
from dkl.threat import NORM_TITLES, EvaluatedNorm, NamedAttack


def is_misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the largest of ``logits[B, C]`` is not that of the label ``y[B]``, ``[B]``.

    Logits that are not finite are misclassified: the argmax of NaN is class 0, which may be the label.
    """
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


def keeping_generators(perturb: Perturb, device: torch.device) -> Perturb:
    """Wrap ``perturb(x, y)`` so that the global generators of the CPU and of ``device`` are afterwards as before."""
    devices = [device] if device.type == "cuda" else []  # the package seeds no others

    @functools.wraps(perturb)
    def kept(x: Tensor, y: Tensor) -> Tensor:
        with torch.random.fork_rng(devices):
            return perturb(x, y)

    return kept


def package_attack(
    asked: NamedAttack,
    model: nn.Module,
    *,
    norm: EvaluatedNorm,
    eps: float,
    seed: int,
    targets: int,
    device: torch.device,
) -> Perturb:
    """An attack as AutoAttack's authors wrote it, which keeps the global generators that it seeds."""
    base, restarts, averages = asked.base, asked.restarts, asked.attack.averages
    common: dict[str, Any] = {"norm": NORM_TITLES[norm], "eps": eps, "seed": seed, "device": device}
    # For L1 AutoAttack shrinks the radius during the search, restarts apgd-ce and takes fewer targets.
    logger = logging.getLogger("auto-attack")
    searched = common | {"n_iter": 100, "use_largereps": norm == "l1", "logger": logger}
    if base == "apgd-t":
        classes = min(5, targets) if norm == "l1" else targets
        attack = APGDAttack_targeted(model, n_restarts=restarts, n_target_classes=classes, **searched)
    elif base.startswith("apgd"):
        several = 5 if norm == "l1" and restarts == 1 else restarts
        loss = base.split("-")[1]
        attack = APGDAttack(model, loss=loss, n_restarts=several, eot_iter=averages, **searched)
    elif base.startswith("fab"):
        targeted = {"targeted": base == "fab-t", "n_target_classes": targets}
        attack = FABAttack_PT(model, n_iter=100, n_restarts=restarts, **targeted, **common)
    else:
        settings = {"p_init": 0.8, "n_queries": 5000, "n_restarts": restarts, "resc_schedule": False}
        attack = SquareAttack(model, **settings, **common)
    return keeping_generators(cast(Perturb, attack.perturb), device)
