"""Learning rates equal those of the recipes and of torch, for any length of training."""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from dkl.assembly import build_schedule
from dkl.config import compose_config
from dkl.training.schedules import (
    Constant,
    Cosine,
    CosineAnnealing,
    CosineSteps,
    OneCycle,
    Poly,
    Schedule,
    Step,
    WarmupSchedule,
)

WITH_WARMUP: list[type[WarmupSchedule]] = [Cosine, CosineAnnealing, Step, Constant]


def factors(schedule: Schedule, epochs: int) -> list[float]:
    return [schedule.lr_factor(epoch, epochs) for epoch in range(1, epochs + 1)]


def official(epoch: int, epochs: int, warmup: int) -> float:
    """The official code: 0.2·½(1 + cos(π(e − w)/(E − w + 1))), and 0.2·e/w for e < w; ½(1 + cos x) = cos²(x/2)."""
    if epoch < warmup:
        return 0.2 * epoch / warmup
    return 0.2 * math.cos(math.pi / 2 * (epoch - warmup) / (epochs - warmup + 1)) ** 2


@pytest.mark.parametrize(("epochs", "warmup"), [(200, 0), (200, 10), (1, 0), (3, 3), (7, 2), (30, 1)])
def test_cosine_is_the_official_formula(epochs: int, warmup: int) -> None:
    for epoch in range(1, epochs + 1):
        ours = 0.2 * Cosine(warmup_epochs=warmup).lr_factor(epoch, epochs)
        assert ours == pytest.approx(official(epoch, epochs, warmup), rel=1e-9)


def stepped(make: type, epochs: int, **settings: float) -> list[tuple[float, float]]:
    """Rate and momentum of each epoch of a scheduler of torch's, stepped once an epoch from a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer, **settings)
        for _ in range(epochs):
            found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
            optimizer.step()
            if len(found) < epochs:
                scheduler.step()
    return found


@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
def test_cosine_annealing_is_torchs(epochs: int) -> None:
    expected = stepped(torch.optim.lr_scheduler.CosineAnnealingLR, epochs, T_max=epochs)
    ours = factors(CosineAnnealing(), epochs)
    assert ours == pytest.approx([rate for rate, _ in expected], abs=1e-12)


@pytest.mark.parametrize(("epochs", "pct_start"), [(41, 0.025), (400, 0.025), (2400, 0.025), (20, 0.3)])
def test_one_cycle_is_torchs_in_rate_and_momentum(epochs: int, pct_start: float) -> None:
    settings = {"max_lr": 1.0, "pct_start": pct_start, "total_steps": epochs}
    expected = stepped(torch.optim.lr_scheduler.OneCycleLR, epochs, **settings)
    schedule = OneCycle(pct_start=pct_start)
    ours = [(schedule.lr_factor(e, epochs), schedule.momentum(e, epochs)) for e in range(1, epochs + 1)]
    assert ours == [pytest.approx(pair, abs=1e-12) for pair in expected]


@pytest.mark.parametrize("steps", [1, 7, 200])
def test_poly_is_torchs_polynomial_rate(steps: int) -> None:
    expected = stepped(torch.optim.lr_scheduler.PolynomialLR, steps, total_iters=steps, power=0.9)
    assert factors(Poly(power=0.9), steps) == pytest.approx([rate for rate, _ in expected], rel=1e-9)


def test_step_falls_after_its_milestones() -> None:
    schedule = Step(milestones=(0.5, 0.75), decay=0.1)
    rates = [schedule.lr_factor(epoch, 200) for epoch in (1, 100, 101, 150, 151, 200)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert factors(Step(), 3) == [1, 1, 1]


@pytest.mark.parametrize(
    "schedule", [Cosine(), CosineAnnealing(), Step(milestones=(0.5, 0.75)), Constant(), OneCycle(), Poly()], ids=repr
)
def test_no_length_of_training_breaks_a_schedule(schedule: Schedule) -> None:
    for epochs in range(1, 401):
        rates = factors(schedule, epochs)
        assert all(0 < rate <= 1 for rate in rates)
        if not isinstance(schedule, OneCycle):
            assert all(one >= other for one, other in pairwise(rates))
        else:
            top = rates.index(max(rates))
            assert all(one < other for one, other in pairwise(rates[: top + 1]))
            assert all(one > other for one, other in pairwise(rates[top:]))


@pytest.mark.parametrize("epochs", [1, 2, 17, 200])
@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("kind", WITH_WARMUP)
def test_rates_rise_through_warmup_and_then_only_fall(kind: type[WarmupSchedule], warmup: int, epochs: int) -> None:
    rates = factors(kind(warmup_epochs=warmup), epochs)
    assert rates[: max(warmup - 1, 0)] == [epoch / warmup for epoch in range(1, min(warmup, epochs + 1))]
    assert all(one >= other for one, other in pairwise(rates[max(warmup - 1, 0) :]))


@pytest.mark.parametrize("epochs", [1, 3, 6, 300])
@pytest.mark.parametrize("kind", WITH_WARMUP)
def test_a_rise_from_a_given_share_reaches_the_schedule_after_the_warm_up(
    kind: type[WarmupSchedule], epochs: int
) -> None:
    rates = factors(kind(warmup_epochs=4, warmup_lr=0.2), epochs)
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8][:epochs])  # the fifth would be 1
    assert rates[4:] == factors(kind(warmup_epochs=4), epochs)[4:]


def test_imagenet_lts_rates_are_those_of_the_recipe() -> None:
    """recipes.md, section 6, epochs from 0: lr·(e + 1)/10 before 10; then ½(1 + cos(π(e − 9)/81))."""
    given = ["data=imagenet_lt", "recipe=kd_imagenet_lt", "task.teacher.name=small_cnn"]
    cfg = compose_config("train", given)
    schedule = build_schedule(cfg.schedule)
    for e in range(90):
        expected = 0.05 * (e + 1) / 10 if e < 10 else 0.05 * math.cos(math.pi * (e - 9) / 162) ** 2
        assert cfg.optimizer.lr * schedule.lr_factor(e + 1, 90) == pytest.approx(expected, rel=1e-9)


def test_cosine_steps_are_usbs() -> None:
    """Points of USB's schedule that are known without its formula; the very first update has rate 0."""
    usb = CosineSteps(warmup_share=0.025)
    rates = [usb.lr_factor(step, 204_800) for step in (1, 2561, 5121, 204_800)]
    assert rates[:3] == [0, 0.5, 1]
    assert rates[3] == pytest.approx(math.sin(math.pi / 16), rel=1e-4)  # cos(7/16 π)
    assert factors(CosineSteps(cycles=0.5), 4) == pytest.approx(
        [1, math.cos(math.pi / 8), 0.5**0.5, math.sin(math.pi / 8)]
    )
    assert factors(CosineSteps(), 1) == [1]
