"""The source files of classes outside the package: a run does not continue after one of them was edited."""

import hashlib
import inspect
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from dkl.assembly.parts import quiet

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = (_PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")))
"""Folders whose files are known by their version."""


def own_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Map every ``_target_`` of a resolved ``config`` that is your own code to the SHA-256 of its file."""
    found = {}
    for target in sorted(set(_targets(config))):
        with suppress(Exception), quiet():  # a target that cannot be imported is reported when it is made
            path = Path(inspect.getfile(get_object(target))).resolve()
            if not any(path.is_relative_to(folder.resolve()) for folder in _INSTALLED):
                found[target] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _targets(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        for each in value.values():
            yield from _targets(each)
    elif isinstance(value, list):
        for each in value:
            yield from _targets(each)
