"""Hydra overrides: which belong to Hydra itself, and its errors as one line that says how to fix them."""

import difflib
import re
from collections.abc import Iterator, Sequence

from omegaconf import DictConfig

from dkl.config.compose import compose_config
from dkl.errors import UserError

HYDRA_OWN = re.compile(r"\+*hydra(?!\.searchpath)")
"""Matches overrides of Hydra itself. ``hydra.searchpath`` is not among them: composing needs it."""


def last_value(overrides: Sequence[str], key: str, default: str) -> str:
    """Return the last value that ``overrides`` give ``key``, or ``default``."""
    return next((text.partition("=")[2] for text in reversed(overrides) if text.startswith(f"{key}=")), default)


def submitit_logs(overrides: Sequence[str], sweep_folder: str) -> str | None:
    """Return where submitit writes the logs of its jobs; None with another launcher."""
    if not last_value(overrides, "hydra/launcher", "basic").startswith("submitit"):
        return None
    folder = last_value(overrides, "hydra.sweep.dir", sweep_folder)
    place = last_value(overrides, "hydra.launcher.submitit_folder", f"{folder}/.submitit/%j")
    return f"{place.replace('%j', 'JOB')}/JOB_*_log.out and .err"


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, cfg):
        yield f"{prefix}{key}"
        child = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _keys(child, f"{prefix}{key}.")


def _suggest(root: str, override: str) -> str:
    """Existing keys similar to the unknown key in ``override``."""
    name = override.lstrip("+~").partition("=")[0].partition("@")[0]
    close = difflib.get_close_matches(name, list(_keys(compose_config(root, []))), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"dkl {root} --help lists the keys"


def explain(root: str, error: Exception) -> UserError:
    """An error of Hydra or OmegaConf as one message for the user."""
    chain = [error]
    while chain[-1].__cause__ is not None:  # Hydra raises a general error from the one that names the mistake
        chain.append(chain[-1].__cause__)  # type: ignore[arg-type]  # causes here are Exceptions
    text = "\n".join(dict.fromkeys(str(item).partition("Config search path")[0].strip() for item in chain))
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "not in" in text:
        return UserError(f"there is no key {unknown[1]!r}: {_suggest(root, unknown[1])}")
    if choice := re.search(r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':\n((?:\t.*\n?)*)", text):
        group, name, available = choice.groups()
        return UserError(f"there is no choice {group}={name}: choose one of {', '.join(available.split())}")
    return UserError("; ".join(line.strip().rstrip(".;") for line in text.splitlines() if line.strip()))
