"""docs/stability.md keeps its promise: names with their arguments, options, and choices of the configuration.

``public_1.0.json`` is the list of version 1.0. It only grows: ``python -m tests.docs.test_stability`` adds what is new
and keeps what was promised. A name may leave it in a new major version only.
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from dkl.options import OPTIONS
from tests.docs.pages import ROOT

FILE = Path(__file__).with_name("public_1.0.json")
PACKAGES = ("dkl.losses", "dkl.attacks", "dkl.evaluation", "dkl.models")


def offered() -> dict[str, list[str]]:
    """Whatever a user may rely on, by its name: the arguments, options or choices that it has today."""
    offers = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            try:
                arguments = [each for each in inspect.signature(value).parameters if each not in ("args", "kwargs")]
            except (TypeError, ValueError):  # of a type such as Literal
                arguments = []
            offers[f"{package}.{name}"] = arguments
    for command, options in OPTIONS.items():
        offers[f"dkl {command}"] = [option.usage.partition("=")[0] for option in options]
    for group in sorted(path for path in (ROOT / "configs").iterdir() if path.is_dir()):
        offers[f"configs/{group.name}"] = sorted(path.stem for path in group.glob("*.yaml"))
    return offers


PROMISED: dict[str, list[str]] = json.loads(FILE.read_text()) if FILE.exists() else {}


@pytest.mark.parametrize("name", PROMISED)
def test_what_version_1_offers_is_still_offered(name: str) -> None:
    today = offered()
    assert name in today
    assert set(PROMISED[name]) <= set(today[name])


if __name__ == "__main__":
    now = offered()
    merged = {name: sorted({*PROMISED.get(name, ()), *now.get(name, ())}) for name in sorted({*PROMISED, *now})}
    FILE.write_text(json.dumps(merged, indent=1) + "\n")
