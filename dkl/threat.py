"""Names of threat models and attacks: radii, norms, and the suites an evaluation is made of. No torch here."""

import math
import re
from fractions import Fraction
from typing import Any, Literal

from dkl.errors import UserError

Norm = Literal["linf", "l2"]

NORMS: tuple[Norm, ...] = ("linf", "l2")

AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The four attacks of standard AutoAttack, in order. Only all four together are called AutoAttack."""

SUITES: dict[str, tuple[str, ...]] = {
    "standard": AUTOATTACK,
    "fast": ("apgd-ce", "apgd-t"),
    "pgd": ("pgd-20",),
    "none": (),
}
"""``standard`` is AutoAttack. ``fast`` is its first two attacks, and is not called AutoAttack anywhere.

``none`` measures accuracy on the images as they are, and nothing else.
"""

_STEPPED = re.compile(r"(pgd|cw)-([1-9]\d*)")


def parse_eps(eps: str | float) -> float:
    """A perturbation radius in pixel units: a number, or a fraction written ``8/255``. Raises UserError."""
    try:
        value = float(Fraction(eps.replace(" ", ""))) if isinstance(eps, str) else float(eps)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"eps must be a finite number or a fraction such as 8/255, not {eps!r}")
    return value


def parse_threat(norm: str, eps: str | float, key: str = "") -> float:
    """The radius of a threat model; ``key`` is the configuration's path to it. Raises UserError on one of no sense."""
    if norm not in NORMS:
        raise UserError(f"{key}norm must be one of {', '.join(NORMS)}, not {norm!r}")
    value = parse_eps(eps)
    if value < 0:
        raise UserError(f"{key}eps={eps} is negative: it is a radius in pixel units, such as 8/255")
    if norm == "linf" and value > 1:
        raise UserError(f"{key}eps={eps} is outside [0, 1]: images are in [0, 1], write 8/255 for 8 grey levels")
    return value


def parse_steps(name: str) -> tuple[str, int] | None:
    """Objective and K of an attack named ``pgd-K`` or ``cw-K``; None for any other name."""
    found = _STEPPED.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def parse_attacks(attacks: Any) -> list[str]:
    """Attack names of a suite's name, one attack's name, or a list of names. Raises UserError, with the choices.

    Only the suite ``none`` has no attacks: an empty list is a mistake.
    """
    if isinstance(attacks, str) and attacks in SUITES:
        return list(SUITES[attacks])
    names = [attacks] if isinstance(attacks, str) else [str(name) for name in attacks]
    unknown = [name for name in names if name not in AUTOATTACK and parse_steps(name) is None]
    if unknown or not names or len(set(names)) != len(names):
        raise UserError(
            f"attacks={attacks} must be one of {', '.join(SUITES)}, or a list without repeats of "
            f"{', '.join(AUTOATTACK)}, pgd-K, cw-K (K steps of eps/4)"
        )
    return names
