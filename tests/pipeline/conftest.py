"""Attacks of a few steps, because these tests are of whole commands; CI's quickstart runs AutoAttack at full length."""

import inspect

import pytest

from dkl.attacks import autoattack
from dkl.attacks.autoattack import apgd


@pytest.fixture(autouse=True)
def short_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack of this process takes a fiftieth of its steps."""
    for attack, argument in (
        (apgd._Settings.__init__, "steps"),
        (autoattack.fab_targeted, "steps"),
        (autoattack.square, "queries"),
    ):
        defaults = inspect.unwrap(attack).__kwdefaults__
        monkeypatch.setitem(defaults, argument, defaults[argument] // 50)
