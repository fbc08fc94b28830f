"""Names of attacks and suites are parsed, and an attack that cannot run is refused."""

from pathlib import Path

import pytest

from dkl.errors import UserError
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.threat import AUTOATTACK, parse_attacks, parse_steps
from tests.evaluation.common import attack


def test_attacks_are_parsed() -> None:
    assert parse_attacks("standard") == list(AUTOATTACK)
    assert parse_attacks("none") == []
    assert parse_attacks("pgd-7") == ["pgd-7"]
    assert parse_attacks(["square", "pgd-20", "cw-20"]) == ["square", "pgd-20", "cw-20"]
    assert (parse_steps("pgd-7"), parse_steps("cw-100"), parse_steps("square")) == (("pgd", 7), ("cw", 100), None)


def test_too_few_classes_are_refused_with_other_attacks() -> None:
    def check(attacks: list[str], num_classes: int) -> None:
        EvaluationProtocol(attacks, "linf", 0.1, "0.1", None, 1, 0).check((1, 8, 8), num_classes)

    with pytest.raises(UserError, match=r"attacks=\[apgd-ce,fab-t,square\]"):
        check(["apgd-t"], 3)
    check(["fab-t", "square"], 2)


def test_an_attack_on_no_images(tmp_path: Path) -> None:
    state = attack(["pgd-40", "apgd-ce"], tmp_path, eps=1.0)
    assert state["pgd-40"].flags.sum() == state["apgd-ce"].flags.sum() == 0
    assert len(state["apgd-ce"].seconds) == 0
