"""Threat models and attacks by name: norms, radii, the registry of attacks and their suites. Does not import torch.

``ATTACKS`` is the one table of attacks: parsing, checks, costs, suites and figures read it, so a new attack is an entry
there and a function. Functions are named by ``module:name``, because records and tables know attacks without torch. An
attack of your own is named in the same way and needs no entry.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from dkl.errors import UserError, similar

Norm = Literal["linf", "l2"]

NORMS: tuple[Norm, ...] = ("linf", "l2")

EvaluatedNorm = Literal["linf", "l2", "l1"]

NORM_TITLES: dict[EvaluatedNorm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}
"""Names of norms in records and in AutoAttack's package."""

EVALUATED_NORMS = tuple(NORM_TITLES)
"""Norms of evaluations: AutoAttack also has L1."""

Draws = Literal["none", "place", "batch", "whole"]
"""What the random draws of an attack for an image depend on, and so which images may be attacked together.

``none``: it draws nothing. ``place``: on the image's place in its batch of AutoAttack and on that batch's length.
``batch``: on which images of its batch are left; several batches may be attacked together, each with its own draws.
``whole``: unknown, so each batch is attacked alone.
"""

PRECISIONS = ("float32", "bf16")
"""Precisions in which attacks search."""

SEARCH: Mapping[str, bool | str] = {
    "channels_last": False,
    "fold_batch_norm": False,
    "compile": False,
    "precision": "float32",
}
"""Settings of the arithmetic in which attacks search, and their defaults."""

FAST: Mapping[str, bool | str] = {"channels_last": True, "precision": "bf16"}
"""Those of ``fast=true``."""


class AttackCost(NamedTuple):
    """Forward passes and input gradients that an attack computes for an image it does not fool."""

    forward: int
    gradients: int

    @property
    def passes(self) -> int:
        """The cost in forward passes: an input gradient with frozen parameters costs about as much as one."""
        return self.forward + self.gradients


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack that evaluations know by name.

    ``function`` is ``module:name`` of ``function(model, images, labels, *, norm, eps, …)``, which also takes those of
    ``seed``, ``targets``, ``steps`` and ``restarts`` that ``takes`` names. None if only the authors' package has it.
    ``cost`` maps the number of classes to the passes of one start, or of one step if it is ``stepped``: its name then
    ends with a number of steps. ``averages`` is the number of passes whose gradients are averaged, for randomized
    networks. ``packaged`` says that AutoAttack's authors have it. ``smallest_side`` is that of images for L2 and L1.
    ``draws`` are those of ``function`` for a norm.
    """

    function: str | None = None
    takes: tuple[str, ...] = ()
    cost: Callable[[int], AttackCost]
    fewest_classes: int = 2
    norms: tuple[EvaluatedNorm, ...] = NORMS
    stepped: bool = False
    averages: int = 1
    packaged: bool = True
    smallest_side: int = 1
    draws: Callable[[EvaluatedNorm], Draws] = lambda norm: "whole"


def target_classes(num_classes: int) -> int:
    """The number of target classes of apgd-t and fab-t: AutoAttack's nine, or all other classes if there are fewer."""
    return min(9, num_classes - 1)


def _flat(forward: int, gradients: int) -> Callable[[int], AttackCost]:
    return lambda classes: AttackCost(forward, gradients)


def _per_target(forward: int, gradients: int) -> Callable[[int], AttackCost]:
    return lambda classes: AttackCost(forward * target_classes(classes), gradients * target_classes(classes))


ATTACKS: dict[str, Attack] = {
    "apgd-ce": Attack(
        function="dkl.attacks.autoattack:apgd_ce",
        takes=("seed", "restarts"),
        cost=_flat(102, 101),
        norms=EVALUATED_NORMS,
        draws=lambda norm: "batch",
    ),
    "apgd-t": Attack(
        function="dkl.attacks.autoattack:apgd_targeted",
        takes=("seed", "targets", "restarts"),
        cost=_per_target(102, 101),
        fewest_classes=4,
        norms=EVALUATED_NORMS,
        draws=lambda norm: "batch",
    ),
    "fab-t": Attack(
        function="dkl.attacks.autoattack:fab_targeted",
        takes=("targets",),
        cost=_per_target(200, 100),
        norms=EVALUATED_NORMS,
        draws=lambda norm: "none",
    ),
    "square": Attack(
        function="dkl.attacks.autoattack:square",
        takes=("seed",),
        cost=_flat(5003, 0),
        norms=EVALUATED_NORMS,
        smallest_side=5,  # for L2 and L1 it begins with windows of a fifth of the image
        draws=lambda norm: "place" if norm == "linf" else "batch",
    ),
    "apgd-dlr": Attack(
        function="dkl.attacks.autoattack:apgd_dlr",
        takes=("seed", "restarts"),
        cost=_flat(102, 101),
        fewest_classes=3,
        draws=lambda norm: "batch",
    ),
    "fab": Attack(cost=lambda classes: AttackCost(200, 100 * classes)),
    "apgd-ce-eot": Attack(cost=_flat(102, 101), averages=20),
    "apgd-dlr-eot": Attack(cost=_flat(102, 101), averages=20, fewest_classes=3),
    "pgd": Attack(
        function="dkl.attacks.named:pgd_steps",
        takes=("seed", "steps", "restarts"),
        cost=_flat(1, 1),
        stepped=True,
        packaged=False,
    ),
    "cw": Attack(
        function="dkl.attacks.named:cw_steps",
        takes=("seed", "steps", "restarts"),
        cost=_flat(1, 1),
        stepped=True,
        packaged=False,
    ),
}
"""Costs are counted, those of targeted attacks per target class."""

LISTED = [f"{name}-K" if attack.stepped else name for name, attack in ATTACKS.items()]
"""Names of attacks in messages."""

OWN = Attack(cost=_flat(100, 0), norms=EVALUATED_NORMS, packaged=False)
"""What is known of an attack of your own: nothing. Its cost is assumed, and it may follow gradients or not."""

AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The four attacks of standard AutoAttack, in order. Only all four together are called AutoAttack."""

SAMPLED = {"fab-t": "sample-fab-t", "square": "sample-square"}
"""The attacks that bounded AutoAttack runs on a random sample of the images only, and their names there."""

SUITES: dict[str, tuple[str, ...]] = {
    "standard": AUTOATTACK,
    "bounded": ("apgd-ce", "apgd-t", *SAMPLED.values()),
    "fast": ("apgd-ce", "apgd-t"),
    "plus": ("apgd-ce-r5", "apgd-dlr-r5", "fab-r5", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce-eot", "apgd-dlr-eot"),
    "pgd": ("pgd-20",),
    "none": (),
}
"""Suite name -> attacks. ``standard`` is AutoAttack; ``bounded`` bounds its result from a sample of images.

``fast`` is the first two attacks, ``plus`` is AutoAttack's longer suite, with five restarts, and ``rand`` its suite for
randomized networks, whose gradients are means over 20 passes. These are never called AutoAttack. ``none`` measures
clean accuracy only.
"""

_NAME = re.compile(r"(?P<base>[a-z-]+?)(?:-(?P<steps>[1-9]\d{0,4}))?(?:-r(?P<restarts>[2-9]|[1-9]\d))?")
_OWN_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class NamedAttack:
    """An attack with the numbers in its name: ``BASE``, ``BASE-K`` for K steps, each also with ``-rR`` for restarts."""

    base: str
    attack: Attack
    steps: int = 1
    restarts: int = 1

    @property
    def norms(self) -> tuple[EvaluatedNorm, ...]:
        """The norms that it has: AutoAttack's version for L1 has restarts of its own."""
        return self.attack.norms if self.restarts == 1 else NORMS

    def cost(self, num_classes: int) -> AttackCost:
        """The approximate cost per image; for progress bars and estimates."""
        forward, gradients = self.attack.cost(num_classes)
        times = self.steps * self.restarts * self.attack.averages
        return AttackCost(forward * times, gradients * times)


def is_own(name: str) -> bool:
    """Whether ``name`` is that of an attack that is code, ``package.module:function``."""
    return _OWN_NAME.fullmatch(name) is not None


def find_attack(name: str) -> NamedAttack | None:
    """The attack of this name, also if it runs on a sample; None for any other name."""
    if is_own(name):
        return NamedAttack(name, OWN)
    match = _NAME.fullmatch(name.removeprefix("sample-"))
    attack = ATTACKS.get(match["base"]) if match else None
    if match is None or attack is None or attack.stepped != bool(match["steps"]):
        return None
    if match["restarts"] and attack.averages > 1:
        return None
    return NamedAttack(match["base"], attack, int(match["steps"] or 1), int(match["restarts"] or 1))


def known_attack(name: str) -> NamedAttack:
    """The attack of this name. Raises UserError if there is none."""
    found = find_attack(name)
    if found is None:
        raise UserError(f"attack {name!r} is not known: choose {', '.join(LISTED)} or package.module:function")
    return found


def gives_result_of(attacks: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether an evaluation with ``attacks`` gives the result of those ``asked``; their order does not matter.

    Bounded AutoAttack becomes the standard suite if its sample would have to hold every image.
    """
    exact = set(asked) == set(SUITES["bounded"]) and set(attacks) == set(AUTOATTACK)
    return exact or set(attacks) == set(asked)


def parse_eps(eps: str | float, key: str = "") -> float:
    """Parse a perturbation radius in pixel units: a number, or a fraction such as ``8/255``.

    Raises UserError, which names ``{key}eps``, if it is neither, or not finite.
    """
    try:
        if isinstance(eps, bool):
            raise TypeError
        # Fraction gives the float nearest to 8/255, as Python's 8 / 255 does.
        value = float(Fraction(eps.replace(" ", ""))) if isinstance(eps, str) else float(eps)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{key}eps={eps!r} must be a finite number or a fraction such as 8/255")
    return value


def parse_threat(
    norm: str, eps: str | float, key: str = "", shape: Sequence[int] = (), norms: Sequence[str] = NORMS
) -> float:
    """Check a threat model and return its radius. ``key`` prefixes the configuration keys in error messages.

    Raises UserError if the norm is none of ``norms``, or if the radius is negative, above 1 for Linf, or for L2 and L1
    above the diagonal of images of ``shape``, if that is given.
    """
    if norm not in norms:
        raise UserError(f"{key}norm must be one of {', '.join(norms)}, not {norm!r}")
    value = parse_eps(eps, key)
    if value < 0:
        raise UserError(f"{key}eps={eps} is negative: give a radius in pixel units, such as 8/255")
    if norm == "linf" and value > 1:
        raise UserError(f"{key}eps={eps} is outside [0, 1]: images are in [0, 1], write 8/255 for 8 gray levels")
    diagonal = math.sqrt(math.prod(shape)) if norm == "l2" else math.prod(shape)
    if norm != "linf" and shape and value > diagonal:
        raise UserError(
            f"{key}eps={eps} is above {diagonal:.1f}, the largest {norm.upper()} distance of two images {list(shape)} "
            "in [0, 1]: write 128/255 for 128 gray levels"
        )
    return value


def parse_steps(name: str) -> tuple[str, int] | None:
    """Split an attack name ``pgd-K`` or ``cw-K`` into objective and K; return None for any other name."""
    found = find_attack(name)
    return (found.base, found.steps) if found and found.attack.stepped and found.restarts == 1 else None


def parse_attacks(attacks: object, *, own: bool = True) -> list[str]:
    """Resolve a suite name, an attack name or a list of attack names to a list of attack names.

    Raises UserError if a name is unknown or repeated, or the list is empty. Only the suite ``none`` has no attacks.
    Unless ``own``, attacks that are code are refused too.
    """
    if isinstance(attacks, str) and attacks in SUITES:
        return list(SUITES[attacks])
    names = [str(name) for name in attacks] if isinstance(attacks, Sequence | Mapping) else []
    names = [attacks] if isinstance(attacks, str) else names
    unknown = [name for name in names if find_attack(name) is None or name in SAMPLED.values()]
    if unknown or not names or len(set(names)) != len(names):
        close = similar(unknown[0], [*SUITES, *(name.replace("-K", "-20") for name in LISTED)]) if unknown else []
        hint = f"did you mean {' or '.join(close)}? It" if close else "it"
        raise UserError(
            f"attacks={attacks}: {hint} must be one of {', '.join(SUITES)}, or a list without repeats of "
            f"{', '.join(LISTED)} (K steps of eps/4, up to 99999), each also with -rR for R restarts, from 2 to 99, "
            "except -eot; or package.module:function, an attack of your own"
        )
    if code := [name for name in names if is_own(name) and not own]:
        raise UserError(f"{code[0]} is code, which runs only if you name it yourself: dkl evaluate attacks=[{code[0]}]")
    return names
