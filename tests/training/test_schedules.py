"""Learning rates are those of the official recipe at both ends and between, and only fall once they have risen."""

import math
from itertools import pairwise

import pytest

from dkl.training.schedules import SCHEDULES, constant, cosine


def official(epoch: int, epochs: int, warmup: int) -> float:
    """The official code: 0.2·½(1 + cos(π(e − w)/(E − w + 1))), and 0.2·e/w for e < w; ½(1 + cos x) = cos²(x/2)."""
    if epoch < warmup:
        return 0.2 * epoch / warmup
    return 0.2 * math.cos(math.pi / 2 * (epoch - warmup) / (epochs - warmup + 1)) ** 2


@pytest.mark.parametrize(("epochs", "warmup"), [(200, 0), (200, 10), (1, 0), (3, 3), (7, 2), (30, 1)])
def test_cosine_is_the_official_formula(epochs: int, warmup: int) -> None:
    for epoch in range(1, epochs + 1):
        assert 0.2 * cosine(epoch, epochs, warmup) == pytest.approx(official(epoch, epochs, warmup), rel=1e-9)


def test_cosine_at_points_known_without_the_formula() -> None:
    assert cosine(10, 200, 10) == 1.0  # the peak, where warm-up ends
    assert cosine(100, 199) == pytest.approx(0.5)  # half way
    assert cosine(1, 1) == pytest.approx(0.5)
    assert cosine(2, 2) == pytest.approx(0.25)  # cos 2π/3 = −½
    assert cosine(5, 200, 10) == 0.5


@pytest.mark.parametrize("epochs", [1, 2, 17, 200])
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_rates_rise_through_warmup_and_then_only_fall_and_stay_above_zero(epochs: int, warmup: int) -> None:
    for schedule in SCHEDULES.values():
        rates = [schedule(epoch, epochs, warmup) for epoch in range(1, epochs + 1)]
        assert all(0 < rate <= 1 for rate in rates)
        assert all(one < other for one, other in pairwise(rates[:warmup]))
        after = rates[max(warmup - 1, 0) :]
        if schedule is cosine:
            assert all(one > other for one, other in pairwise(after))
        else:
            assert set(after) <= {1.0} or epochs < warmup


def test_constant_is_the_peak_after_a_linear_rise() -> None:
    assert [constant(epoch, 6, 4) for epoch in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
