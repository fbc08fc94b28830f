"""Learning rates are those of the recipes, at both ends and between, at any length of training."""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from dkl.training.schedules import (
    SCHEDULES,
    Shape,
    constant,
    cosine,
    cosine_annealing,
    one_cycle,
    one_cycle_momentum,
    step,
)

PLAIN = Shape()


def official(epoch: int, epochs: int, warmup: int) -> float:
    """The official code: 0.2·½(1 + cos(π(e − w)/(E − w + 1))), and 0.2·e/w for e < w; ½(1 + cos x) = cos²(x/2)."""
    if epoch < warmup:
        return 0.2 * epoch / warmup
    return 0.2 * math.cos(math.pi / 2 * (epoch - warmup) / (epochs - warmup + 1)) ** 2


@pytest.mark.parametrize(("epochs", "warmup"), [(200, 0), (200, 10), (1, 0), (3, 3), (7, 2), (30, 1)])
def test_cosine_is_the_official_formula(epochs: int, warmup: int) -> None:
    for epoch in range(1, epochs + 1):
        ours = 0.2 * cosine(epoch, epochs, Shape(warmup=warmup))
        assert ours == pytest.approx(official(epoch, epochs, warmup), rel=1e-9)


def test_cosine_at_points_known_without_the_formula() -> None:
    assert cosine(10, 200, Shape(warmup=10)) == 1.0  # the peak, where warm-up ends
    assert cosine(100, 199, PLAIN) == pytest.approx(0.5)  # half way
    assert cosine(1, 1, PLAIN) == pytest.approx(0.5)
    assert cosine(2, 2, PLAIN) == pytest.approx(0.25)  # cos 2π/3 = −½
    assert cosine(5, 200, Shape(warmup=10)) == 0.5


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
    ours = [cosine_annealing(epoch, epochs, PLAIN) for epoch in range(1, epochs + 1)]
    assert ours == pytest.approx([rate for rate, _ in expected], abs=1e-12)


@pytest.mark.parametrize(("epochs", "pct_start"), [(41, 0.025), (400, 0.025), (2400, 0.025), (20, 0.3)])
def test_one_cycle_is_torchs_in_rate_and_momentum(epochs: int, pct_start: float) -> None:
    settings = {"max_lr": 1.0, "pct_start": pct_start, "total_steps": epochs}
    expected = stepped(torch.optim.lr_scheduler.OneCycleLR, epochs, **settings)
    shape = Shape(pct_start=pct_start)
    ours = [(one_cycle(e, epochs, shape), one_cycle_momentum(e, epochs, shape)) for e in range(1, epochs + 1)]
    assert ours == [pytest.approx(pair, abs=1e-12) for pair in expected]


def test_step_falls_after_its_milestones() -> None:
    shape = Shape(milestones=(0.5, 0.75), decay=0.1)
    rates = [step(epoch, 200, shape) for epoch in (1, 100, 101, 150, 151, 200)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [step(epoch, 3, Shape()) for epoch in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_length_of_training_breaks_a_schedule(name: str) -> None:
    shape = Shape(milestones=(0.5, 0.75))
    for epochs in range(1, 401):
        rates = [SCHEDULES[name](epoch, epochs, shape) for epoch in range(1, epochs + 1)]
        assert all(0 < rate <= 1 for rate in rates)
        if name != "one_cycle":
            assert all(one >= other for one, other in pairwise(rates))
        else:
            top = rates.index(max(rates))
            assert all(one < other for one, other in pairwise(rates[: top + 1]))
            assert all(one > other for one, other in pairwise(rates[top:]))


@pytest.mark.parametrize("epochs", [1, 2, 17, 200])
@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"one_cycle"}))
def test_rates_rise_through_warmup_and_then_only_fall(name: str, warmup: int, epochs: int) -> None:
    rates = [SCHEDULES[name](epoch, epochs, Shape(warmup=warmup)) for epoch in range(1, epochs + 1)]
    assert rates[: max(warmup - 1, 0)] == [epoch / warmup for epoch in range(1, min(warmup, epochs + 1))]
    assert all(one >= other for one, other in pairwise(rates[max(warmup - 1, 0) :]))


def test_constant_is_the_peak_after_a_linear_rise() -> None:
    assert [constant(epoch, 6, Shape(warmup=4)) for epoch in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
