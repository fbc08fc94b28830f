"""Only the standard suite, on the whole test set, bears AutoAttack's name and a rank."""

import pytest

from dkl.errors import UserError
from dkl.records import AttackResult, Bound
from dkl.reporting.boards.leaderboards import leaderboards
from dkl.reporting.grouping import attacks_label
from dkl.reporting.robustbench import model_info
from dkl.threat import SUITES
from tests.reporting.factories import make_record

OTHERS = {name: list(attacks) for name, attacks in SUITES.items() if name not in ("standard", "none")}
CHANGES = [*({"attacks": attacks} for attacks in OTHERS.values()), {"partial": True, "n": 100}]


@pytest.mark.parametrize("changes", CHANGES, ids=[*OTHERS, "part of the images"])
def test_other_evaluations_have_other_names(changes: dict[str, object]) -> None:
    attacks = changes.get("attacks", list(SUITES["standard"]))
    results = dict.fromkeys(attacks, AttackResult(robust=0.3, seconds=1.0))
    bound = Bound(low=0.29, high=0.3, tolerance=1.0) if attacks == OTHERS["bounded"] else None
    whole = {"attacks": list(SUITES["standard"])}
    whole["per_attack"] = dict.fromkeys(whole["attacks"], AttackResult(robust=0.3, seconds=1.0))
    record = make_record(**{**whole, "per_attack": results, "robust": 0.3, "bound": bound, **changes})
    standard = make_record(**whole, robust=0.3)
    assert attacks_label(standard) == "AutoAttack"
    if "attacks" in changes:
        assert attacks_label(record) in ("bounded AutoAttack", " + ".join(attacks) + " (not AutoAttack)")
    rows = [row for board in leaderboards([record]) for row in board.rows]
    assert [row.rank for row in rows] == [None]
    assert [row.rank for row in leaderboards([standard])[0].rows] == [1]
    with pytest.raises(UserError):
        model_info(record)


def test_other_radii_have_other_boards() -> None:
    names = {leaderboards([make_record(eps=levels / 255, eps_text=f"{levels}/255")])[0].name for levels in (4, 8)}
    norms = {leaderboards([make_record(norm=norm)])[0].name for norm in ("Linf", "L2", "L1")}
    assert len(names) == 2
    assert len(norms) == 3
