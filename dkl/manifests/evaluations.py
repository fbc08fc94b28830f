"""Checks the overrides of ``dkl evaluate`` in a manifest when it is read, without composing a configuration."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from dkl.config import WEIGHTS, EvaluateConfig
from dkl.config.overrides import read_overrides
from dkl.errors import UserError, choose_from
from dkl.threat import parse_attacks, parse_threat
from dkl.validation import check, settings

SUBJECT = ("run", "checkpoint", "data", "model")
"""Keys that name what to evaluate: in a manifest it is the row's own run."""


def check_evaluation(overrides: Sequence[str]) -> None:
    """Raise UserError if ``overrides`` name no option of ``dkl evaluate``, or a value outside its range."""
    known = [item.name for item in fields(EvaluateConfig) if item.name not in SUBJECT]
    given: dict[str, Any] = {}
    for override in read_overrides(overrides):
        key = override.key_or_group
        if key.partition(".")[0] not in known:
            raise UserError(f"there is no option {key!r} of an evaluation: {choose_from(key, known)}")
        given[key] = override.value()
    check(settings(EvaluateConfig, given))
    attacks = parse_attacks(given.get("attacks", "standard"))
    threat = {key: given[key] for key in ("norm", "eps") if key in given}
    if threat and not attacks:
        raise UserError(f"attacks=none attacks nothing: leave out {' and '.join(threat)}")
    if threat:
        parse_threat(str(threat.get("norm", "linf")), threat.get("eps", 0))
    if (weights := given.get("weights")) not in (None, *WEIGHTS):
        raise UserError(f"weights={weights}: {choose_from(str(weights), WEIGHTS)}")
