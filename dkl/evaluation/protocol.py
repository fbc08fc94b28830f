"""The protocol of an evaluation: attacks, threat model, number of images, batch size and seed."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

from dkl.config import EvaluateConfig, EvaluationConfig
from dkl.errors import UserError
from dkl.threat import (
    AUTOATTACK,
    EVALUATED_NORMS,
    PRECISIONS,
    SEARCH,
    SUITES,
    EvaluatedNorm,
    changed_search,
    parse_attacks,
    parse_restarts,
    parse_steps,
    parse_threat,
)

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationProtocol:
    """The settings that decide the flags of an evaluation.

    ``n`` images are taken, balanced over classes, or all if it is None. Without attacks the threat model is Linf with
    radius 0, which contains only the clean image. With ``package`` the authors' code of AutoAttack runs, not ours.
    ``tolerance`` is the widest interval of bounded AutoAttack, in percentage points; None for other suites. ``search``
    are the settings of ``dkl.threat.SEARCH`` that differ from their defaults.
    """

    attacks: list[str]
    norm: EvaluatedNorm
    eps: float
    eps_text: str
    n: int | None
    batch_size: int
    seed: int
    package: bool = False
    tolerance: float | None = None
    search: Mapping[str, bool | str] = field(default_factory=dict)

    @property
    def authors_code(self) -> bool:
        """Whether AutoAttack's four attacks are the authors' code: on request, and for L1."""
        return self.package or self.norm == "l1"

    @property
    def standard(self) -> "EvaluationProtocol":
        """The standard suite, which a bounded evaluation becomes if it must."""
        return dataclasses.replace(self, attacks=list(AUTOATTACK), tolerance=None)

    @property
    def text(self) -> str:
        """The attacks and the threat model in words."""
        return f"{', '.join(self.attacks)}, {self.norm} eps {self.eps_text}" if self.attacks else "accuracy"


class WholeBatches(EvaluationProtocol):
    """What becomes of the protocol of a network that is not a function of one image; names of records stay.

    The authors' code keeps AutoAttack's batches whole, in which ours leaves out what is fooled.
    """

    @property
    def authors_code(self) -> bool:
        """Whether there are attacks of AutoAttack."""
        return any(parse_steps(parse_restarts(name)[0]) is None for name in self.attacks)


def _asked_or(asked: T | None, default: T) -> T:
    return default if asked is None else asked


def _threat_model(asked: EvaluateConfig, defaults: EvaluationConfig, attacks: list[str]) -> tuple[str, str]:
    """Return the norm and the radius as text. Raises UserError if they contradict the attacks or each other."""
    if not attacks:
        given = [f"{key}={value}" for key, value in (("norm", asked.norm), ("eps", asked.eps)) if value is not None]
        if given:
            raise UserError(f"attacks=none attacks nothing: leave out {' '.join(given)}, or name attacks")
        return "linf", "0"
    norm = _asked_or(asked.norm, defaults.norm)
    # The default radius belongs to the default norm: 8/255 is customary for Linf and far too small for L2.
    if norm in EVALUATED_NORMS and norm != defaults.norm and asked.eps is None:
        raise UserError(f"norm={norm} needs its own radius: add eps=…, such as eps=0.5 for L2 on CIFAR")
    return norm, str(_asked_or(asked.eps, defaults.eps))


def _check_used(asked: EvaluateConfig, attacks: list[str], *, bounded: bool) -> None:
    """Raise UserError on a setting that the attacks would ignore."""
    if asked.tolerance is not None and not bounded:
        raise UserError(f"tolerance={asked.tolerance:g} is a setting of attacks=bounded: add that, or leave it out")
    if asked.package and not bounded and not set(attacks) & set(AUTOATTACK):
        named = ",".join(attacks) or "none"
        raise UserError(f"package=true runs AutoAttack's own code, but attacks={named} names none of its attacks")


def _check_search(asked: EvaluateConfig, search: Mapping[str, object], attacks: list[str]) -> None:
    """Raise UserError if the precision is not known, or if a setting of the search is given without attacks."""
    if search["precision"] not in PRECISIONS:
        raise UserError(f"precision={search['precision']} must be {' or '.join(PRECISIONS)}")
    given = [f"{name}={getattr(asked, name)}" for name in SEARCH if getattr(asked, name) is not None]
    if given and not attacks:
        raise UserError(f"attacks=none attacks nothing: leave out {' '.join(given)}, or name attacks")


def choose_protocol(asked: EvaluateConfig, defaults: EvaluationConfig) -> EvaluationProtocol:
    """Take each setting from ``asked``, or from ``defaults`` if it is None. Raises UserError on an invalid value."""
    attacks = parse_attacks(_asked_or(asked.attacks, "none" if asked.corruptions else defaults.attacks))
    if attacks and asked.corruptions:
        raise UserError(f"corruptions={asked.corruptions} is measured without attacks: leave out attacks=…")
    norm, eps_text = _threat_model(asked, defaults, attacks)
    eps = parse_threat(norm, eps_text, norms=EVALUATED_NORMS)
    bounded = attacks == list(SUITES["bounded"])
    _check_used(asked, attacks, bounded=bounded)
    search = {name: _asked_or(getattr(asked, name), getattr(defaults, name)) for name in SEARCH}
    _check_search(asked, search, attacks)
    if norm == "l1" and not bounded and not set(attacks) <= set(AUTOATTACK):
        raise UserError(f"attacks={','.join(attacks)} has no norm=l1: only {', '.join(AUTOATTACK)} have it")
    n, batch_size = _asked_or(asked.n, defaults.n), _asked_or(asked.batch_size, defaults.batch_size)
    return EvaluationProtocol(
        attacks=attacks,
        norm=cast(EvaluatedNorm, norm),  # parse_threat has checked it
        eps=eps,
        eps_text=eps_text,
        n=n,
        batch_size=batch_size,
        seed=_asked_or(asked.seed, defaults.seed),
        package=asked.package,
        tolerance=_asked_or(asked.tolerance, defaults.tolerance) if bounded else None,
        search=changed_search(search) if attacks else {},
    )
