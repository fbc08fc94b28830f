"""Options of ``dkl reproduce``: its own, and what goes on to every ``dkl train`` or to Hydra's launcher."""

from dataclasses import dataclass

from dkl.config.overrides import HYDRA_OWN
from dkl.errors import UserError
from dkl.manifests import Request

OWN = ("experiment", "table", "figure", "seed", "budget", "row", "dry_run")

SMOKE_RESULTS = "results/smoke"
"""Where budget smoke writes unless told otherwise, so that its figures are never among results."""


@dataclass(frozen=True)
class Options:
    """The manifest's ``name``, what of it is asked for, and overrides of Hydra itself (a launcher and its values)."""

    name: str
    request: Request
    launcher: tuple[str, ...] = ()
    dry_run: bool = False


def _name(given: dict[str, str]) -> str:
    """The manifest's name; ``table=2`` is table-02."""
    named = [f"{key}={given[key]}" for key in ("experiment", "table", "figure") if key in given]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} name {len(named)} manifests: give one")
    kind, _, number = named[0].partition("=") if named else ("experiment", "", "quickstart")
    if kind == "experiment":
        return number
    if not number.isdecimal():
        raise UserError(f"{kind}={number} must be the number of a {kind} of the paper, such as {kind}=2")
    return f"{kind}-{int(number):02d}"


def yes_or_no(key: str, text: str) -> bool:
    """``text`` as a choice. Raises UserError where it is neither."""
    if text.lower() not in ("true", "false"):
        raise UserError(f"{key}={text} must be true or false")
    return text.lower() == "true"


def _seeds(text: str | None) -> tuple[int, ...] | None:
    try:
        return tuple(int(seed) for seed in text.split(",")) if text else None
    except ValueError:
        raise UserError(f"seed={text} must be whole numbers such as 0,1,2") from None


def parse(arguments: list[str]) -> Options:
    """The options among ``arguments``. Raises UserError on what is no ``KEY=VALUE``."""
    own: dict[str, str] = {}
    extra: list[str] = []
    launcher: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is no KEY=VALUE; dkl reproduce --help shows them")
        if key in OWN:
            own[key] = value
        else:
            (launcher if HYDRA_OWN.match(key) else extra).append(argument)
    budget = own.get("budget") or None
    if budget == "smoke" and not any(text.startswith("paths.results=") for text in extra):
        extra.append(f"paths.results={SMOKE_RESULTS}")
    request = Request(_seeds(own.get("seed")), budget, own.get("row") or None, tuple(extra))
    return Options(_name(own), request, tuple(launcher), yes_or_no("dry_run", own.get("dry_run", "false")))
