"""The training attack's schedules at both ends and between, for every length of training, and its errors."""

from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from dkl.attacks import AttackStrength, TrainingAttack
from dkl.attacks.training_attack import RULES
from dkl.errors import UserError
from dkl.threat import NORMS, parse_eps

EPS = 8 / 255


def test_as_intended_grows_by_quarters() -> None:
    for epochs, first, last, steps, relative in [
        *((200, 1, 50, 2, 1), (200, 51, 100, 3, 2 / 3), (200, 101, 150, 4, 1 / 2), (200, 151, 200, 5, 1 / 2)),
        *((8, 1, 2, 2, 1), (8, 3, 4, 3, 2 / 3), (8, 5, 6, 4, 1 / 2), (8, 7, 8, 5, 1 / 2)),
        *((1, 1, 1, 5, 1 / 2), (2, 1, 1, 3, 2 / 3), (3, 1, 1, 3, 2 / 3), (3, 2, 2, 4, 1 / 2)),
    ]:
        attack = TrainingAttack(eps="8/255", schedule="as_intended")
        for epoch in range(first, last + 1):
            budget = attack.at(epoch, epochs)
            assert budget.steps == steps
            assert budget.step_size == pytest.approx(relative * EPS * epoch / epochs, rel=1e-12)


def test_low_takes_two_whole_steps() -> None:
    for epoch in (1, 100, 200):
        budget = TrainingAttack(eps="8/255", schedule="low").at(epoch, 200)
        assert (budget.steps, budget.step_size) == (2, budget.eps)


def test_fixed_takes_the_steps_it_is_given_relative_to_eps() -> None:
    attack = TrainingAttack(eps="8/255", schedule="fixed", steps=10, relative_step=0.25, ramp=False)
    for epoch in (1, 77, 200):
        budget = attack.at(epoch, 200)
        assert (budget.eps, budget.steps) == (EPS, 10)
        assert budget.step_size == pytest.approx(2 / 255, rel=1e-12)
    ramped = TrainingAttack(eps="8/255", schedule="fixed", steps=3, relative_step=0.5)
    assert ramped.at(50, 200) == AttackStrength(EPS / 4, EPS / 8, 3)


def test_the_ramp_is_linear_and_can_be_left_out() -> None:
    ramped, flat = TrainingAttack(eps=0.1), TrainingAttack(eps=0.1, ramp=False)
    radii = [ramped.at(epoch, 50).eps for epoch in range(1, 51)]
    assert radii == pytest.approx([0.1 * epoch / 50 for epoch in range(1, 51)], rel=1e-12)
    assert radii[-1] == 0.1
    assert {flat.at(epoch, 50).eps for epoch in range(1, 51)} == {0.1}


FIXED = {"schedule": "fixed", "steps": 7, "relative_step": 0.25}


@pytest.mark.parametrize("settings", [{"schedule": name} for name in RULES] + [FIXED], ids=[*RULES, "fixed"])
def test_no_length_of_training_breaks_a_schedule(settings: dict[str, Any]) -> None:
    # the official code has no branch for the last epoch of 29, 57, 58, 113 … epochs
    attacks: list[TrainingAttack] = [TrainingAttack(eps=EPS, norm=norm, **settings) for norm in NORMS]
    for attack, epochs in product(attacks, range(1, 301)):
        budgets = [attack.at(epoch, epochs) for epoch in range(1, epochs + 1)]
        steps = [budget.steps for budget in budgets]
        assert steps == sorted(steps)
        assert budgets[-1].eps == EPS
        for budget in budgets:
            assert 0 < budget.step_size <= budget.eps <= EPS
            assert budget.steps * budget.step_size >= budget.eps  # each epoch's attack can cross its ball


def test_l2_schedules_keep_their_steps_and_cross_the_ball_once() -> None:
    for schedule in RULES:
        linf = TrainingAttack(eps=0.5, schedule=schedule)
        l2 = TrainingAttack(eps=0.5, schedule=schedule, norm="l2")
        for epoch in range(1, 201):
            budget = l2.at(epoch, 200)
            assert budget.steps == linf.at(epoch, 200).steps
            assert budget.step_size * budget.steps == pytest.approx(
                2 * 0.5 * epoch / 200, rel=1e-12
            )  # TRADES: lr 2 eps/K


def test_a_fixed_l2_attack_takes_the_step_it_is_given() -> None:
    assert TrainingAttack(eps=0.5, norm="l2", ramp=False, **FIXED).at(3, 9) == AttackStrength(0.5, 0.125, 7)


def test_eps_is_read_as_a_fraction() -> None:
    for text in ["8/255", " 8 / 255 ", "0.5", "1", "0", "2/1", "1e-3"]:
        assert parse_eps(text) == float(Fraction(text.replace(" ", "")))
        assert parse_eps(0.25) == 0.25


def test_unreadable_eps_is_refused_with_the_right_form() -> None:
    for text in ["", "eight", "8/0", "8/255/2", "8//255", "nan", "inf", "8\\255", "1e999", None, [1]]:
        with pytest.raises(UserError, match="8/255"):
            parse_eps(text)


def test_l2_radii_may_exceed_one() -> None:
    assert TrainingAttack(eps=1.5, norm="l2").at(10, 10).eps == 1.5
