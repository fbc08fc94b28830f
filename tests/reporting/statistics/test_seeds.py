"""Means and intervals against independent formulas."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkl.records.metrics import wilson
from dkl.reporting.statistics import SeedMean, accuracy_interval, percent, student


def score_bound(fraction: float, n: int, outer: float) -> float:
    """Return by bisection the p between ``fraction`` and ``outer`` (0 or 1) that the 5 % score test just rejects."""
    z = statistics.NormalDist().inv_cdf(0.975)
    accepted = fraction
    for _ in range(200):
        p = (accepted + outer) / 2
        if abs(fraction - p) < z * math.sqrt(p * (1 - p) / n):
            accepted = p
        else:
            outer = p
    return accepted


@given(n=st.integers(1, 20_000), share=st.floats(0, 1))
def test_wilson_inverts_the_score_test(n: int, share: float) -> None:
    fraction = round(share * n) / n
    low, high = wilson(fraction, n)
    assert low == pytest.approx(score_bound(fraction, n, 0.0), abs=1e-9)
    assert high == pytest.approx(score_bound(fraction, n, 1.0), abs=1e-9)
    assert 0 <= low <= fraction <= high <= 1 or min(abs(low - fraction), abs(high - fraction)) < 1e-12


@given(n=st.integers(1, 20_000), share=st.floats(0, 1))
def test_wilson_solves_the_quadratic(n: int, share: float) -> None:
    """(f - p)² = z² p (1 - p) / n, as a polynomial in p."""
    fraction, z = round(share * n) / n, statistics.NormalDist().inv_cdf(0.975)
    roots = np.roots([1 + z**2 / n, -(2 * fraction + z**2 / n), fraction**2])
    assert wilson(fraction, n) == pytest.approx(sorted(roots.real), abs=1e-7)


@pytest.mark.parametrize(
    ("seeds", "quantile"), [(2, 12.70620474), (3, 4.302652730), (5, 2.776445105), (10, 2.262157163)]
)
def test_student_has_the_quantiles_of_printed_tables(seeds: int, quantile: float) -> None:
    values = [0.3 + 0.01 * (seed % 3) + 0.001 * seed for seed in range(seeds)]
    interval = student(values)
    half = quantile * statistics.stdev(values) / math.sqrt(seeds)
    assert interval == pytest.approx((statistics.fmean(values) - half, statistics.fmean(values) + half))


def test_seeds_of_equal_accuracy_have_the_interval_of_the_images_or_none() -> None:
    third = sum([0.1] * 3) / 3  # 0.1, but for a rounding error
    assert accuracy_interval([0.1, third], 50) == accuracy_interval([0.1], 50) == wilson(0.1, 50)
    assert accuracy_interval([0.1, 0.1], None) is None, "a mean IoU is no fraction of images"
    assert student([7.5, 7.5]) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_std_is_the_sample_one(values: list[float]) -> None:
    estimate = SeedMean.over(values)
    assert estimate.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert estimate.std == pytest.approx(statistics.stdev(values), abs=1e-12)


def test_one_seed_has_no_std() -> None:
    assert SeedMean.over([0.5]) == SeedMean(0.5, None)
    assert str(SeedMean(0.5, None)) == "50.00"
    assert str(SeedMean(0.5, 0.0)) == "50.00 ± 0.00"


@given(st.integers(0, 10_000))
def test_percent_is_exact_for_ten_thousand_images(correct: int) -> None:
    assert percent(correct / 10_000) == f"{correct // 100}.{correct % 100:02d}"
