"""Attacks by the names of ``dkl.threat.ATTACKS``, and those of them that papers on adversarial training report.

``pgd-K`` and ``cw-K`` take K steps of eps/4 from a uniform start. PGD raises the cross-entropy (Madry et al. 2018).
"CW" raises the margin max_{i≠y} z_i − z_y, the loss of Carlini and Wagner (2017) without its floor; an image with a
positive margin is misclassified.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial, wraps
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks.pgd import Perturb, pgd
from dkl.errors import needs_extra
from dkl.threat import NORM_TITLES, Draws, EvaluatedNorm, Norm, known_attack, parse_steps, target_classes


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of another class minus that of the label, ``[B]``, for ``logits[B, C]`` and ``labels[B]``."""
    own = labels.unsqueeze(1)
    others = logits.scatter(1, own, float("-inf"))
    return others.amax(1) - logits.gather(1, own).squeeze(1)


def is_misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the largest of ``logits[B, C]`` is not that of the label ``y[B]``, ``[B]``.

    Logits that are not finite are misclassified: the argmax of NaN is class 0, which may be the label.
    """
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B]``: is the largest of ``logits[B, C]`` at the label?"""
    return logits.argmax(-1) == labels


def top5(logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B]``: is the label among the five largest of ``logits[B, C]``? C must be at least 5."""
    # Among equal logits topk may leave out the one that argmax picks. A correct top-1 prediction always counts.
    return (logits.topk(5, dim=-1).indices == labels[:, None]).any(-1) | top1(logits, labels)


def _steps(
    loss: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    start: Tensor | None = None,
    *,
    norm: Norm,
    eps: float,
    seed: int,
    steps: int,
    restarts: int = 1,
) -> Tensor:
    """Raise ``loss(logits[B, C], y[B])`` in ``steps`` from ``start``, by default drawn uniformly from the ball.

    Each of the ``restarts`` after the first draws new noise and attacks the images that are not fooled yet.
    """
    generator = torch.Generator(x.device).manual_seed(seed)

    def once(x: Tensor, y: Tensor, start: Tensor | None) -> Tensor:
        settings: dict[str, Any] = {"eps": eps, "step_size": eps / 4, "steps": steps, "norm": norm}
        return pgd(model, x, lambda logits: loss(logits, y), start=start, generator=generator, **settings)

    result = once(x, y, start)
    for _ in range(restarts - 1):
        with torch.no_grad():
            remaining = (~is_misclassified(model(result), y)).nonzero().squeeze(1)
        if not len(remaining):
            break
        result[remaining] = once(x[remaining], y[remaining], None)
    return result


pgd_steps = partial(_steps, partial(F.cross_entropy, reduction="sum"))
"""``pgd-K`` on ``model``, ``x[B, ...]``, ``y[B]``; every call draws the same noise, from ``seed``."""

cw_steps = partial(_steps, lambda logits, labels: margin(logits, labels).sum())
"""``cw-K``, in the same way."""


class Search(partial[Tensor]):
    """An attack on a model, and what its random ``draws`` depend on."""

    draws: Draws = "whole"


_LATER = ("n_iter", "n_queries")
"""The package's settings set after construction, as people do: the lengths that it derives from them stay."""


def _package_attack(
    base: str,
    model: nn.Module,
    targets: int,
    settings: Mapping[str, Any],
    *,
    norm: EvaluatedNorm,
    eps: float,
    seed: int,
    device: torch.device,
) -> Perturb:
    """An attack as AutoAttack's authors wrote it, which keeps the global generators that it seeds.

    ``settings`` are attributes of the package's attack that differ from those of its standard suite.
    """
    with needs_extra("full"):
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from pyautoattack.fab_pt import FABAttack_PT
        from pyautoattack.square import SquareAttack
    given = {name: value for name, value in settings.items() if name not in _LATER}
    common: dict[str, Any] = {"norm": NORM_TITLES[norm], "eps": eps, "seed": seed, "device": device}
    # For L1 AutoAttack shrinks the radius during the search, and takes fewer targets.
    searched = {"n_iter": 100, "use_largereps": norm == "l1", "logger": logging.getLogger("auto-attack")}
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

    @wraps(attack.perturb)  # whose settings a caller may want to see
    def perturb(x: Tensor, y: Tensor) -> Tensor:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the package seeds no others
            found: Tensor = attack.perturb(x, y)
            return found

    return perturb


_ARGUMENTS = {
    "n_restarts": "restarts",
    "n_iter": "steps",
    "n_target_classes": "targets",
    "n_queries": "queries",
}
"""Names of settings in AutoAttack's package, and of the arguments of our attacks."""


def make_attack(
    name: str,
    model: nn.Module,
    *,
    norm: EvaluatedNorm,
    eps: float,
    seed: int,
    num_classes: int = 10,
    package: bool = False,
    device: torch.device | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Perturb:
    """Return the attack ``name`` on ``model``: a function of images ``[B, ...]`` in [0, 1] and labels ``[B]``.

    Every call, and so every batch, starts from ``seed`` again, as in AutoAttack. A batch's result therefore does not
    depend on the batches before it, and an evaluation can be resumed at any batch. With ``package``, AutoAttack's
    attacks are the authors' code, which fools the same images and is slower. That code also serves what was not
    rewritten: L1, ``fab``, restarts of fab-t and square, and mean gradients. ``settings`` are attributes of the
    package's attack, such as ``n_iter``, that differ from those of its standard suite.
    """
    asked, targets, settings = known_attack(name), target_classes(num_classes), dict(settings or {})
    function, takes, several = asked.attack.function, asked.attack.takes, settings.get("n_restarts", asked.restarts)
    rewritten = norm != "l1" and (several == 1 or "restarts" in takes) and set(settings) <= set(_ARGUMENTS)
    if asked.attack.packaged and (package or function is None or not rewritten):
        defaults: dict[str, Any] = {"n_restarts": asked.restarts}
        if asked.base.startswith("apgd"):
            defaults["eot_iter"] = asked.attack.averages
        if asked.base in ("apgd-ce", "apgd-dlr") and norm == "l1" and asked.restarts == 1:
            defaults["n_restarts"] = 5
        place, settings = device or torch.device("cpu"), defaults | settings
        return _package_attack(asked.base, model, targets, settings, norm=norm, eps=eps, seed=seed, device=place)
    assert function is not None
    module, _, attribute = function.partition(":")
    known = {"seed": seed, "targets": targets, "steps": asked.steps, "restarts": several}
    given = {_ARGUMENTS[key]: value for key, value in settings.items() if key != "n_restarts"}
    options = {key: known[key] for key in takes} | given
    found = Search(getattr(import_module(module), attribute), model, norm=norm, eps=eps, **options)
    found.draws = asked.attack.draws(norm)
    return found


def named_attack(model: nn.Module, name: str, *, norm: Norm, eps: float, seed: int) -> Perturb:
    """Return the attack ``name``, ``pgd-K`` or ``cw-K``, on ``model``; ``eps`` in [0, 1] is in pixel units.

    Call it with images in [0, 1], labels and optionally a start. Raises ValueError on any other name.
    """
    if parse_steps(name) is None:
        raise ValueError(f"attack {name!r} is not known: write pgd-K or cw-K, such as pgd-20")
    return make_attack(name, model, norm=norm, eps=eps, seed=seed)
