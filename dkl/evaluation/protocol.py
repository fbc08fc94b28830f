"""The protocol of an evaluation: attacks, threat model, number of images, batch size, seed and search.

One object from which the record's name and fields, the comparison with earlier records and every check are derived.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self, TypeVar, cast

import torch
from torch import nn

from dkl.attacks import OwnAttack, Perturb, make_attack
from dkl.attacks.autoattack.task import AttackPlan
from dkl.config import EvaluateConfig, EvaluationConfig
from dkl.errors import UserError
from dkl.importing import import_object
from dkl.records import Record
from dkl.threat import (
    ATTACKS,
    AUTOATTACK,
    EVALUATED_NORMS,
    FAST,
    NORM_TITLES,
    PRECISIONS,
    SEARCH,
    SUITES,
    EvaluatedNorm,
    is_own,
    known_attack,
    parse_attacks,
    parse_threat,
)

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationProtocol(AttackPlan):
    """The plan of ``dkl evaluate``, from which records are named and filled; ``own`` are attacks of the user's own.

    Without attacks the threat model is Linf with radius 0, which contains only the clean image.
    """

    own: Mapping[str, OwnAttack] = field(default_factory=dict, repr=False)

    @property
    def authors_code(self) -> bool:
        """Whether AutoAttack's four attacks are the authors' code: on request, and for L1."""
        return self.package or self.norm == "l1"

    def whole(self) -> Self:
        """What becomes of it for a network that is not a function of one image."""
        return cast(Self, WholeBatches(**vars(self)))

    def make(self, name: str, model: nn.Module, num_classes: int, device: torch.device) -> Perturb:
        """The attack ``name`` on ``model``."""
        settings: dict[str, Any] = {"norm": self.norm, "eps": self.eps, "seed": self.seed}
        if name in self.own:
            return self.own[name].on(model, **settings)
        return make_attack(name, model, **settings, num_classes=num_classes, package=self.authors_code, device=device)

    @property
    def text(self) -> str:
        """The attacks and the threat model in words."""
        return f"{', '.join(self.attacks)}, {self.norm} eps {self.eps_text}" if self.attacks else "accuracy"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by name, as plain values; attacks of the user's own by the hashes of their files."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "own"}
        return values | ({"own": self.code} if self.own else {})

    @property
    def code(self) -> dict[str, str]:
        """The hashes of the files of attacks of the user's own."""
        return {name: attack.sha256 for name, attack in self.own.items()}

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that name a record."""
        # Absent unless asked for, so that evaluations from before these settings keep their names.
        later = ("package", "tolerance", "search")
        return {name: value for name, value in self.settings.items() if value or name not in later}

    @property
    def fields_of_record(self) -> dict[str, Any]:
        """The fields of a record that hold the settings; ``versions`` are those of the attacks."""
        return {
            "norm": NORM_TITLES[self.norm],
            "eps": self.eps,
            "eps_text": self.eps_text,
            "attacks": self.attacks,
            "evaluation_seed": self.seed,
            "batch_size": self.batch_size,
            "search": dict(self.search),
            "versions": {"attacks": "pyautoattack" if self.authors_code else "dkl"}
            | {name: sha256[:12] for name, sha256 in self.code.items()},
        }

    @classmethod
    def of_record(cls, record: Record, named: Sequence[str]) -> "EvaluationProtocol":
        """How ``record`` was made. Attacks that are code are imported only if the user ``named`` them.

        Raises UserError if one is missing, or if another is named.
        """
        if other := [name for name in named if name not in record.attacks]:
            raise UserError(f"{record.id} was not attacked by {other[0]}: leave it out of attacks=")
        own = import_own(named)
        if code := [name for name in record.attacks if is_own(name) and name not in own]:
            raise UserError(
                f"{record.id} was attacked by {', '.join(code)}, and a record may not choose code to run: if you trust "
                f"it, name it yourself, attacks=[{','.join(code)}]"
            )
        return cls(
            attacks=record.attacks,
            norm=cast(EvaluatedNorm, record.norm.lower()),
            eps=record.eps,
            eps_text=record.eps_text,
            n=None,
            batch_size=record.batch_size,
            seed=record.evaluation_seed,
            search=record.search,
            package=record.versions.get("attacks") == "pyautoattack",
            own=own,
        )

    def made(self, record: Record) -> bool:
        """Whether ``record`` was made with these settings, on whatever images."""
        ours = self.fields_of_record
        keys = [key for key in ours if key not in ("eps_text", "versions")]
        same = all(getattr(record, key) == ours[key] for key in keys)
        return same and ours["versions"].items() <= record.versions.items()


class WholeBatches(EvaluationProtocol):
    """What becomes of the protocol of a network that is not a function of one image; names of records stay.

    The authors' code keeps AutoAttack's batches whole, in which ours leaves out what is fooled.
    """

    @property
    def authors_code(self) -> bool:
        """Whether there are attacks of AutoAttack."""
        return any(known_attack(name).attack.packaged for name in self.attacks)


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
    """Raise UserError on a setting that the attacks, or the lack of any, would ignore."""
    given = [f"{name}={getattr(asked, name)}" for name in SEARCH if getattr(asked, name) is not None]
    given += ["fast=true"] if asked.fast else []
    if given and not attacks:
        raise UserError(f"attacks=none attacks nothing: leave out {' '.join(given)}, or name attacks")
    if asked.tolerance is not None and not bounded:
        raise UserError(f"tolerance={asked.tolerance:g} is a setting of attacks=bounded: add that, or leave it out")
    if asked.package and not bounded and not set(attacks) & set(AUTOATTACK):
        named = ",".join(attacks) or "none"
        raise UserError(f"package=true runs AutoAttack's own code, but attacks={named} names none of its attacks")


def import_own(names: Iterable[str]) -> dict[str, OwnAttack]:
    """Import those of the attacks ``names`` that are the user's own. Raises UserError if one cannot be imported."""
    what = "a function (model, images, labels, *, norm, eps, seed) that returns images"
    return {name: OwnAttack(name, import_object(name, "attacks", what)) for name in names if is_own(name)}


def choose_protocol(
    asked: EvaluateConfig, defaults: EvaluationConfig, own: Mapping[str, OwnAttack] = MappingProxyType({})
) -> EvaluationProtocol:
    """Take each setting from ``asked``, or from ``defaults`` if it is None. Raises UserError on an invalid value.

    Attacks of the user's own are ``own`` ones, or are imported if ``asked`` names them.
    """
    if asked.attacks is not None:
        attacks = parse_attacks(asked.attacks)
    else:  # the defaults are those of a run, which may be anyone's
        attacks = parse_attacks("none" if asked.corruptions else defaults.attacks, own=False)
    if attacks and asked.corruptions:
        raise UserError(f"corruptions={asked.corruptions} is measured without attacks: leave out attacks=…")
    norm, eps_text = _threat_model(asked, defaults, attacks)
    eps = parse_threat(norm, eps_text, norms=EVALUATED_NORMS)
    bounded = attacks == list(SUITES["bounded"])
    _check_used(asked, attacks, bounded=bounded)
    usual = {**vars(defaults), **(FAST if asked.fast else {})}
    search = {name: _asked_or(getattr(asked, name), usual[name]) for name in SEARCH}
    if search["precision"] not in PRECISIONS:
        raise UserError(f"precision={search['precision']} must be {' or '.join(PRECISIONS)}")
    if any(norm not in known_attack(name).norms for name in attacks):
        having = ", ".join(name for name, attack in ATTACKS.items() if norm in attack.norms)
        raise UserError(f"attacks={','.join(attacks)} has no norm={norm}: only {having} have it")
    return EvaluationProtocol(
        attacks=attacks,
        norm=cast(EvaluatedNorm, norm),  # parse_threat has checked it
        eps=eps,
        eps_text=eps_text,
        n=_asked_or(asked.n, defaults.n),
        batch_size=_asked_or(asked.batch_size, defaults.batch_size),
        seed=_asked_or(asked.seed, defaults.seed),
        package=asked.package,
        tolerance=_asked_or(asked.tolerance, defaults.tolerance) if bounded else None,
        search={name: value for name, value in search.items() if value != SEARCH[name]} if attacks else {},
        own=dict(own) | import_own(name for name in attacks if name not in own),
    )
