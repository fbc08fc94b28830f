"""Arguments of ``dkl reproduce``: its own options, overrides of ``dkl train``, and overrides of Hydra's launcher."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

from dkl.config import TrainConfig
from dkl.config.overrides import HYDRA_OWN, quoted
from dkl.errors import UserError, choose_from, similar
from dkl.manifests import Request

KEYS = ("experiment", "table", "figure", "seed", "budget", "row", "dry_run", "html")

TRAIN = {field.name for field in fields(TrainConfig)} | {"recipe"}
"""Keys of ``dkl train`` without a dot."""

SMOKE = "smoke"
"""The folder of budget smoke in the default results folder. It keeps its values apart from real results."""


@dataclass(frozen=True)
class Options:
    """The manifest's ``name``, the part of it to run, and overrides of Hydra itself (``launcher``).

    ``html``: also draw all figures and write the results page.
    """

    name: str
    request: Request
    launcher: tuple[str, ...] = ()
    dry_run: bool = False
    html: bool = False


def parse(arguments: list[str]) -> Options:
    """Parse ``KEY=VALUE`` arguments. Raises UserError if one has another form, or a value is wrong."""
    options: dict[str, str] = {}
    overrides: list[str] = []
    launcher: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise UserError(f"{argument!r} is not KEY=VALUE; dkl reproduce --help lists the options")
        if key in KEYS:
            if not value:
                raise UserError(f"{argument} has no value; dkl reproduce --help lists the options")
            options[key] = value
        elif key.isalpha() and key not in TRAIN and similar(key, KEYS):
            raise UserError(f"there is no option {key!r}: {choose_from(key, KEYS)}, or an option of dkl train")
        else:
            (launcher if HYDRA_OWN.match(key) else overrides).append(argument)
    budget = options.get("budget") or None
    if budget == "smoke" and not any(text.startswith("paths.results=") for text in overrides):
        results = Path(os.environ.get("DKL_RESULTS_DIR", "results")) / SMOKE
        overrides.append(f"paths.results={quoted(str(results))}")
    request = Request(_seeds(options.get("seed")), budget, options.get("row") or None, tuple(overrides))
    dry_run, html = (parse_bool(key, options.get(key, "false")) for key in ("dry_run", "html"))
    return Options(_manifest_name(options), request, tuple(launcher), dry_run=dry_run, html=html)


def _manifest_name(options: dict[str, str]) -> str:
    """The manifest's name: ``table=2`` is table-02."""
    named = [f"{key}={options[key]}" for key in ("experiment", "table", "figure") if key in options]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} name {len(named)} manifests: give one of them")
    kind, _, number = named[0].partition("=") if named else ("experiment", "", "quickstart")
    if kind == "experiment":
        return number
    if not number.isdecimal():
        raise UserError(f"{kind}={number} must be the number of a {kind} in the paper, such as {kind}=2")
    return f"{kind}-{int(number):02d}"


def parse_bool(key: str, text: str) -> bool:
    """Parse the value of ``key``. Raises UserError if it is neither true nor false."""
    if text.lower() not in ("true", "false"):
        raise UserError(f"{key}={text} must be true or false")
    return text.lower() == "true"


def _seeds(text: str | None) -> tuple[int, ...] | None:
    try:
        seeds = tuple(int(seed) for seed in text.split(",")) if text else None
    except ValueError:
        raise UserError(f"seed={text} must be whole numbers, such as 0,1,2") from None
    if seeds and len(set(seeds)) < len(seeds):
        raise UserError(f"seed={text} has a seed twice: give each once")
    return seeds
