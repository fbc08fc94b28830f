"""AutoAttack's package: its own attacks with the settings of its suites. It is installed by the extra ``full``.

It has what is not rewritten here: L1, ``fab``, restarts of fab-t and square, and mean gradients.
"""

import functools
import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from dkl.attacks.pgd import Perturb
from dkl.errors import needs_extra
from dkl.threat import NORM_TITLES, EvaluatedNorm

_LATER = ("n_iter", "n_queries")
"""Settings that are set after construction, as people do: the lengths that the package derives from them stay."""


def keeping_generators(perturb: Perturb, device: torch.device) -> Perturb:
    """Wrap ``perturb(x, y)`` so that the global generators of the CPU and of ``device`` are afterwards as before."""
    devices = [device] if device.type == "cuda" else []  # the package seeds no others

    @functools.wraps(perturb)
    def kept(x: Tensor, y: Tensor) -> Tensor:
        with torch.random.fork_rng(devices):
            return perturb(x, y)

    return kept


def package_attack(
    base: str,
    model: nn.Module,
    *,
    norm: EvaluatedNorm,
    eps: float,
    seed: int,
    targets: int,
    device: torch.device,
    settings: Mapping[str, Any],
) -> Perturb:
    """An attack as AutoAttack's authors wrote it, which keeps the global generators that it seeds.

    ``settings`` are attributes of the package's attack that differ from those of its standard suite.
    """
    with needs_extra("full"):
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from pyautoattack.fab_pt import FABAttack_PT
        from pyautoattack.square import SquareAttack
    common: dict[str, Any] = {"norm": NORM_TITLES[norm], "eps": eps, "seed": seed, "device": device}
    # For L1 AutoAttack shrinks the radius during the search, and takes fewer targets.
    searched = {"n_iter": 100, "use_largereps": norm == "l1", "logger": logging.getLogger("auto-attack")}
    given = {name: value for name, value in settings.items() if name not in _LATER}
    if base == "apgd-t":
        classes = {"n_target_classes": min(5, targets) if norm == "l1" else targets}
        attack = APGDAttack_targeted(model, **(common | searched | classes | given))
    elif base.startswith("apgd"):
        attack = APGDAttack(model, loss=base.split("-")[1], **(common | searched | given))
    elif base.startswith("fab"):
        targeted = {"n_iter": 100, "targeted": base == "fab-t", "n_target_classes": targets}
        attack = FABAttack_PT(model, **(common | targeted | given))
    else:
        queries = {"p_init": 0.8, "n_queries": 5000, "resc_schedule": False}
        attack = SquareAttack(model, **(common | queries | given))
    for name in settings.keys() & set(_LATER):
        setattr(attack, name, settings[name])
    return keeping_generators(cast(Perturb, attack.perturb), device)
