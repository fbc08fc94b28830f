"""The values that a budget fixes: its sizes and, at ``paper``, those of the recipe."""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl.config.choices import choices
from dkl.config.compose import shipped
from dkl.errors import UserError, choose_from

FIXED_GROUPS = ("model", "attack", "averaging", "schedule")
"""Groups whose choice in a recipe or budget is fixed too. Loss and data belong to the row of a table."""

FREE = re.compile(r"attack\.objective\b.*|model\.(?!name$).*|task\.(warmup_epochs|masked)|trainer\.workers")
"""Keys of those groups that a row may set, and the number of workers, which changes no batch."""


SIZES_OF_CLASSIFIERS = ("data.train_size", "data.test_size", "trainer.epochs")
"""Sizes that budget ``mini`` fixes for images with one label each. With a label per pixel a manifest chooses them."""


def check_budget(cfg: DictConfig) -> None:
    """Raise UserError if ``cfg`` changes a value that its budget, or at ``paper`` its recipe, fixes."""
    name = cfg.budget.name
    if name in ("own", "smoke"):  # own fixes nothing; the values of smoke are never shown
        return
    file = shipped("configs") / "budget" / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"budget.name={name}: {choose_from(str(name), choices('budget'))}, as budget=NAME")
    fixed = _leaves(file)
    if name == "paper":
        if cfg.recipe_name == "quick":
            raise UserError("budget=paper needs a recipe of the paper: add recipe=official, or use budget=own")
        recipe = shipped("configs") / "recipe" / f"{cfg.recipe_name}.yaml"
        if not recipe.is_file():  # found on the user's hydra.searchpath
            raise UserError(
                f"budget=paper needs a recipe of the paper, and recipe={cfg.recipe_name} is not shipped: use budget=own"
            )
        fixed |= _leaves(recipe)
    if name == "mini" and cfg.data.ignore_index is not None:
        fixed = {key: value for key, value in fixed.items() if key not in SIZES_OF_CLASSIFIERS}
    for key, value in fixed.items():
        now = OmegaConf.select(cfg, key)
        if FREE.fullmatch(key) or (name == "mini" and key == "model.name"):  # distillation has its own small networks
            continue
        if (now.value if isinstance(now, Enum) else now) != value:
            raise UserError(f"budget={name} fixes {key}={value}, here it is {now}; use budget=own for your own sizes")


def _leaves(path: Path, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value of a YAML file, and of the files and choices in its defaults list.

    The files are read directly, not composed: a composed configuration no longer says which file set a value.
    """
    content = OmegaConf.load(path)
    assert isinstance(content, DictConfig)
    found: dict[str, Any] = {}
    from_task: dict[str, Any] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            found |= {} if entry == "_self_" else _leaves(path.with_name(f"{entry}.yaml"), prefix)
            continue
        for group, choice in ((str(key).removeprefix("override /"), choice) for key, choice in entry.items()):
            other = path.parents[1] / group / f"{choice}.yaml"
            if group in FIXED_GROUPS:
                found |= _leaves(other, f"{group}.")
            if group == "task":  # Hydra composes it after the attack, so what it sets there wins
                from_task |= {key: value for key, value in _leaves(other).items() if key.startswith("attack.")}
    plain = OmegaConf.to_container(content, resolve=False)
    assert isinstance(plain, dict)
    return found | from_task | {f"{prefix}{key}": value for key, value in _flat(plain) if key != "defaults"}


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves by dotted key, except interpolations: their values follow other keys."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, str) and "${" in value):
            yield f"{prefix}{key}", value
