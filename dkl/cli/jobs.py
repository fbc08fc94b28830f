"""The jobs of a command: one, or those of a sweep, composed and checked before the first one starts."""

import itertools
from collections.abc import Callable

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config.compose import choices
from dkl.config.overrides import HYDRA_OWN, check_hydras_own, compose_explained, explain, read_overrides
from dkl.errors import UserError, choose_from


def compose_checked(root: str, overrides: list[str], check: Callable[[DictConfig], None]) -> None:
    """Compose and check every job. Raises UserError on the first one that cannot run."""
    _check_searched(overrides)
    for job in jobs(overrides):
        cfg = compose_explained(root, job)
        try:
            check(cfg)
            OmegaConf.to_container(cfg, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(root, error, job) from None
    check_hydras_own(root, overrides)


def without_repeats(overrides: list[str]) -> list[str]:
    """``overrides`` in which every list of a sweep has each value once: the same run is one job."""
    return [_once(override) for override in read_overrides(overrides)]


def _once(override: Override) -> str:
    listed = isinstance(override.value(), ChoiceSweep)
    values = list(override.sweep_string_iterator()) if listed else []
    different = list(dict.fromkeys(values))
    repeats = len(different) < len(values)
    return f"{override.get_key_element()}={','.join(different)}" if repeats else override.input_line or ""


def jobs(overrides: list[str]) -> list[list[str]]:
    """List the overrides of each job of a sweep; without a sweep there is one job."""
    parsed = read_overrides(overrides)
    options = [_choices(override) for override in parsed if not HYDRA_OWN.match(override.input_line or "")]
    return [list(choice) for choice in itertools.product(*options)]


def _choices(override: Override) -> list[str]:
    """The values of ``override`` in a sweep, as plain overrides; an interval is checked at its two ends."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        if value.start is not None and value.end is not None and value.start > value.end:
            raise UserError(f"{override.input_line} is empty: write interval({value.end},{value.start})")
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if isinstance(value, Glob):
        return [f"{key}={choice}" for choice in _matching(override, value)]
    if override.is_sweep_override():
        return [f"{key}={choice}" for choice in override.sweep_string_iterator()]
    return [override.input_line or ""]


def _matching(override: Override, glob: Glob) -> list[str]:
    """The choices that ``glob`` matches. Raises UserError if there are none."""
    known = choices(override.key_or_group)
    if not (found := glob.filter(list(known))):
        fix = choose_from("", known) if known else "glob is for groups; list the values"
        raise UserError(f"{override.input_line} matches nothing: {fix}")
    return found


def _check_searched(overrides: list[str]) -> None:
    """Raise UserError if an override is an interval, but no sweeper searches it."""
    for override in read_overrides(overrides):
        if isinstance(override.value(), IntervalSweep) and not any(o.startswith("hydra/sweeper=") for o in overrides):
            raise UserError(
                f"{override.input_line} is an interval: add -m hydra/sweeper=optuna to search it, or list values"
            )
