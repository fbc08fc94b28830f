"""Names of threat models and attacks: norms, radii and attack suites. Does not import torch."""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from dkl.errors import UserError, similar

Norm = Literal["linf", "l2"]

NORMS: tuple[Norm, ...] = ("linf", "l2")

EvaluatedNorm = Literal["linf", "l2", "l1"]

EVALUATED_NORMS: tuple[EvaluatedNorm, ...] = (*NORMS, "l1")
"""Norms of evaluations: AutoAttack also has L1."""

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

UNTARGETED = ("apgd-dlr", "fab")
"""Attacks of the suite ``plus`` that the standard suite replaces by targeted ones."""

AVERAGED = ("apgd-ce-eot", "apgd-dlr-eot")
"""APGD on mean gradients (EOT), the suite ``rand``."""

_STEPPED = re.compile(r"(pgd|cw)-([1-9]\d{0,4})")
_RESTARTED = re.compile(r"(.+)-r([2-9]|[1-9]\d)")

PRECISIONS = ("float32", "bf16")
"""Precisions in which attacks search."""

SEARCH: Mapping[str, bool | str] = {
    "channels_last": False,
    "fold_batch_norm": False,
    "compile": False,
    "precision": "float32",
}
"""Settings of the arithmetic in which attacks search, and their defaults."""


def changed_search(settings: Mapping[str, object]) -> dict[str, bool | str]:
    """Return those of the ``settings`` of the search that differ from their defaults."""
    return {
        name: value
        for name, default in SEARCH.items()
        if isinstance(value := settings[name], type(default)) and value != default
    }


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
    found = _STEPPED.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def parse_restarts(name: str) -> tuple[str, int]:
    """Split ``NAME-rR`` into the attack and its number of restarts, which is 1 without a suffix."""
    found = _RESTARTED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 1)


def _is_attack(name: str) -> bool:
    base, _ = parse_restarts(name)
    return name in AVERAGED or base in (*AUTOATTACK, *UNTARGETED) or parse_steps(base) is not None


def parse_attacks(attacks: object) -> list[str]:
    """Resolve a suite name, an attack name or a list of attack names to a list of attack names.

    Raises UserError if a name is unknown or repeated, or the list is empty. Only the suite ``none`` has no attacks.
    """
    if isinstance(attacks, str) and attacks in SUITES:
        return list(SUITES[attacks])
    names = [str(name) for name in attacks] if isinstance(attacks, Sequence | Mapping) else []
    names = [attacks] if isinstance(attacks, str) else names
    unknown = [name for name in names if not _is_attack(name)]
    if unknown or not names or len(set(names)) != len(names):
        close = (
            similar(unknown[0], [*SUITES, *AUTOATTACK, *UNTARGETED, *AVERAGED, "pgd-20", "cw-20"]) if unknown else []
        )
        hint = f"did you mean {' or '.join(close)}? It" if close else "it"
        raise UserError(
            f"attacks={attacks}: {hint} must be one of {', '.join(SUITES)}, or a list without repeats of "
            f"{', '.join((*AUTOATTACK, *UNTARGETED, *AVERAGED))}, pgd-K, cw-K (K steps of eps/4, up to 99999), each "
            "also with -rR for R restarts, from 2 to 99, except -eot"
        )
    return names
