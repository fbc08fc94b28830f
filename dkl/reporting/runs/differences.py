"""Settings in which runs differ."""

from collections.abc import Sequence
from typing import Any

from dkl.reporting.grouping import group
from dkl.reporting.runs.read import RunSummary

IGNORED = ("paths.", "logger.", "logger", "model.title", "data.source.download")
"""Settings, or their beginnings, that cannot change a result."""

WHERE = ("trainer.device", "trainer.threads", "trainer.workers", "trainer.validate_every")
"""Settings of where and how often, which the hash of a run leaves out as well."""

NAMED = ("data.name", "model.name", "loss._target_", "seed")
"""Settings that are part of a run's name."""


def changed_keys(runs: Sequence[RunSummary]) -> list[str]:
    """Return the keys whose values are not the same in all ``runs``."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not key.startswith(IGNORED))
    return [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]


def own_differences(runs: Sequence[RunSummary]) -> list[str]:
    """Return, for each run, what is special about it, such as ``loss.wmse_weight=12``.

    A setting inside a group is compared among runs with the same choice of the group only: two losses have different
    arguments, which say no more than their names.
    """
    keys = [key for key in changed_keys(runs) if key not in (*WHERE, *NAMED) and not key.startswith("evaluation.")]
    special: list[list[str]] = [[] for _ in runs]
    for key in keys:
        alike = group(enumerate(runs), lambda pair, key=key: repr(_head(pair[1], key)))  # type: ignore[misc]
        for same in alike.values():
            values = {repr(run.settings.get(key)) for _, run in same}
            if len(values) > 1:
                for place, run in same:
                    if key in run.settings:
                        special[place].append(setting_text(key, run.settings[key]))
    return [", ".join(texts) for texts in special]


def _head(run: RunSummary, key: str) -> Any:
    """Return the value that must be equal in two runs before ``key`` is worth comparing."""
    choice, _, rest = key.partition(".")
    heads = {"data": "data.name", "model": "model.name"}
    if not rest or key in (heads.get(choice), f"{choice}._target_", "budget.name"):
        return None  # the choice itself
    if choice in ("trainer", "optimizer", "schedule", "selection"):  # recipes set these
        return run.settings.get("recipe_name")
    return run.settings.get(heads.get(choice, f"{choice}._target_"))


def setting_text(key: str, value: Any) -> str:
    """Return a setting in the form of an override."""
    return f"{setting_name(key)}={value_text(value)}"


def setting_name(key: str) -> str:
    """Return the key as in an override: ``loss`` for ``loss._target_``."""
    return {"recipe_name": "recipe", "budget.name": "budget"}.get(key, key.removesuffix("._target_"))


def value_text(value: Any) -> str:
    """Return a value as in YAML, a class without its module, and a float with its shortest digits."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, str) and value.startswith("dkl."):
        return value.rpartition(".")[2]
    return f"{value:.12g}" if isinstance(value, float) else str(value)
