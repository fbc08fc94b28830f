"""Means, intervals and paired comparisons against independent formulas, binomial sums and simulations."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dkl.errors import UserError
from dkl.records.metrics import wilson
from dkl.records.record import Segmented
from dkl.reporting.boards.claims import holm
from dkl.reporting.statistics import (
    Comparison,
    LinePoint,
    Measurement,
    SeedMean,
    Shift,
    accuracy_interval,
    compare,
    percent,
    shift_above,
    student,
)
from tests.reporting.factories import flags_of, make_record

T_2, T_3, T_49 = 4.302652730, 3.182446305, 2.009575234
"""Student's 97.5 % quantiles with 2, 3 and 49 degrees of freedom, from a printed table."""

Flags = NDArray[np.bool_]


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
    assert str(SeedMean(0.5, 0.0)) == "50.00", "a spread of zero says nothing"


@given(st.integers(0, 10_000))
def test_percent_is_exact_for_ten_thousand_images(correct: int) -> None:
    assert percent(correct / 10_000) == f"{correct // 100}.{correct % 100:02d}"


def run(
    name: str, images: Sequence[Flags], slack: float = 0.0, **about: Any
) -> tuple[dict[int, Measurement], dict[str, Flags]]:
    """Return a row measured at seeds 0, 1, … from one array of flags per seed, and the flags by record."""
    cells, right = {}, {}
    for seed, flags in enumerate(images):
        record = make_record(id=f"{name}{seed}", seed=seed, n=len(flags), **about)
        cells[seed] = Measurement(float(flags.mean()), (record,), (("clean", *record.attacks),), slack)
        right[record.id] = flags
    return cells, right


def compared(ones: Sequence[Flags], others: Sequence[Flags]) -> Comparison:
    one, right = run("one", ones)
    other, more = run("other", others)
    return compare(one, other, flags_of(right | more))


def images(both: int, won: int, lost: int, neither: int) -> tuple[Flags, Flags]:
    """Return the flags of two rows from the number of images that both, one or neither gets right."""
    kinds = np.repeat([0, 1, 2, 3], [both, won, lost, neither])
    return kinds <= 1, (kinds == 0) | (kinds == 2)


def tail(won: int, total: int, share: float) -> float:
    """P(X >= won) for X ~ Binomial(total, share)."""
    return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(won, total + 1))


@given(won=st.integers(0, 40), lost=st.integers(0, 40), both=st.integers(0, 30), neither=st.integers(0, 30))
def test_one_seed_gives_mcnemars_exact_test(won: int, lost: int, both: int, neither: int) -> None:
    assume(won + lost)
    total, n = won + lost, won + lost + both + neither
    one, other = images(both, won, lost, neither)
    found = compared([one], [other])
    assert found.test == "McNemar's exact test"
    assert (found.n, found.seeds) == (n, (0,))
    assert found.difference == pytest.approx((won - lost) / n)
    assert found.p == pytest.approx(min(1.0, 2 * tail(max(won, lost), total, 0.5)))
    # Wald's interval of the mean of the differences, with half an image more of each of the four kinds.
    counts = {1: won + 0.5, -1: lost + 0.5, 0: both + neither + 1.0}
    mean = sum(value * count for value, count in counts.items()) / (n + 2)
    variance = sum((value - mean) ** 2 * count for value, count in counts.items()) / (n + 2)
    half = 1.959963985 * math.sqrt(variance / (n + 2))
    assert (found.low, found.high) == pytest.approx((max(mean - half, -1), min(mean + half, 1)))
    if found.separates:
        assert found.p < 0.05


def test_the_same_right_images_are_equal_only_within_an_interval() -> None:
    one, _ = images(5, 3, 0, 2)
    found = compared([one], [one])
    assert (found.difference, found.p, found.separates) == (0, 1, False)
    assert found.low == -found.high
    assert found.agrees(0.1, True) is None  # of only ten images


def test_several_seeds_add_the_errors_of_seeds_and_images() -> None:
    rng = np.random.default_rng(1)
    ones, others = rng.random((2, 3, 50)) < np.array([0.8, 0.5])[:, None, None]
    found = compared(list(ones), list(others))
    by_seed = [a.mean() - b.mean() for a, b in zip(ones, others, strict=True)]
    by_image = [sum(float(a[i]) - float(b[i]) for a, b in zip(ones, others, strict=True)) / 3 for i in range(50)]
    mean = sum(by_seed) / 3
    seeds = sum((value - mean) ** 2 for value in by_seed) / 2 / 3
    single = sum((value - mean) ** 2 for value in by_image) / 49 / 50
    half = (found.high - found.low) / 2
    assert found.difference == pytest.approx(mean)
    assert (found.low + found.high) / 2 == pytest.approx(mean)
    assert half == pytest.approx(math.sqrt(T_2**2 * seeds + T_49**2 * single))
    # At the level p, the quantiles of both parts add up to the distance of the mean from 0.
    quantiles = [student_quantile(1 - found.p / 2, degrees) for degrees in (2, 49)]
    assert abs(mean) == pytest.approx(math.sqrt(quantiles[0] ** 2 * seeds + quantiles[1] ** 2 * single), abs=1e-6)


def student_quantile(share: float, degrees: float) -> float:
    """Student's quantile by bisection."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, degrees) < share else (low, middle)
    return low


def student_cdf(t: float, degrees: float) -> float:
    """Student's distribution function for t >= 0, by the trapezoidal rule on its density."""
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    points = np.linspace(0, t, 200_001)
    return 0.5 + float(np.trapezoid(scale * (1 + points**2 / degrees) ** (-(degrees + 1) / 2), points))


@pytest.mark.parametrize("quantile", [T_2, T_3])
def test_without_flags_it_is_the_paired_t_test(quantile: float) -> None:
    differences = [0.01, 0.03, 0.02, 0.05][: 3 if quantile == T_2 else 4]
    one, other = (
        {
            seed: Measurement(0.3 + add * difference, (make_record(seed=seed),))
            for seed, difference in enumerate(differences)
        }
        for add in (1, 0)
    )
    found = compare(one, other, lambda record: {})
    mean = sum(differences) / len(differences)
    spread = math.sqrt(sum((value - mean) ** 2 for value in differences) / (len(differences) - 1) / len(differences))
    assert (found.low, found.high) == pytest.approx((mean - quantile * spread, mean + quantile * spread))
    assert found.test == "paired t test over seeds"


def test_two_seeds_close_together_by_chance_do_not_count_as_known() -> None:
    """Networks whose seeds differ by much more than the images explain: at most 5 % may be called different."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(300):
        chance = 0.5 + rng.normal(0, 0.06, (2, 2, 1))
        ones, others = rng.random((2, 2, 2000)) < chance
        found.append(compared(list(ones), list(others)))
    assert sum(one.separates for one in found) / len(found) <= 0.07
    assert all(one.separates == (one.p < 0.05) for one in found)


@pytest.mark.parametrize("truth", [0.0, 0.04])
def test_the_interval_covers_the_true_difference(truth: float) -> None:
    """Seeds and images both vary here; an interval over one of them alone would miss far more often than 5 %."""
    rng = np.random.default_rng(3)
    covered, trials = 0, 400
    for _ in range(trials):
        luck = rng.normal(0, 0.01, (2, 4, 1)) + rng.uniform(-0.3, 0.3, (2, 1, 150))
        chance = 0.5 + luck + np.array([truth, 0])[:, None, None]
        ones, others = rng.random((2, 4, 150)) < chance
        found = compared(list(ones), list(others))
        covered += found.low <= truth <= found.high
    assert 0.935 <= covered / trials <= 0.995


def test_only_seeds_on_the_same_images_are_paired() -> None:
    one, right = run("one", [np.array([True, False]), np.array([True, True])])
    other, more = run("other", [np.array([False, False])])
    assert compare(one, other, flags_of(right | more)).seeds == (0,)
    mirrored = Segmented(miou=0.5, iou={"sky": 0.5}, prediction="mirrored")
    for about in ({"data_sha256": "e" * 64}, {"attacks": [], "segmented": mirrored}):
        elsewhere, _ = run("other", [np.array([False, False])], **about)
        with pytest.raises(UserError, match="same test images"):
            compare(one, elsewhere, flags_of(right | more))
    with pytest.raises(UserError, match="no per-image flags"):
        compare(one, other, lambda record: {})


def test_no_difference_is_beyond_all_images() -> None:
    right, wrong = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    single = compared([right], [wrong])
    assert single.low <= single.difference <= single.high == 1
    found = compared([right, np.array([True, False, True])], [wrong, wrong])
    assert (found.low, found.high) == (-1, 1)


@pytest.mark.parametrize("flags", [[[True], [False]], [[True], [True]]])
def test_several_seeds_on_one_image_are_not_compared(flags: list[list[bool]]) -> None:
    with pytest.raises(UserError, match="one test image has no spread"):
        compared([np.array(seed) for seed in flags], [np.array([False])] * 2)


def test_equal_differences_have_no_spread() -> None:
    one, other = ({seed: Measurement(value, (make_record(seed=seed),)) for seed in (0, 1)} for value in (0.4, 0.3))
    with pytest.raises(UserError, match="no spread"):
        compare(one, other, lambda record: {})


def test_the_bounds_of_autoattack_widen_the_interval_and_raise_p() -> None:
    """Of 400 images the first row may lose 8 more: then 40 of 68 images that differ are in its favor."""
    one, other = images(both=200, won=40, lost=20, neither=140)
    plain = compared([one], [other])
    (ones, right), (others, more) = run("one", [one], slack=0.02), run("other", [other], slack=0.01)
    found = compare(ones, others, flags_of(right | more))
    assert found.difference == plain.difference
    assert (found.low, found.high) == pytest.approx((plain.low - 0.02, plain.high + 0.01))
    assert found.p == pytest.approx(2 * tail(40, 68, 0.5))


def test_holms_correction_multiplies_by_the_number_of_tests_left_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_row_lies_above_a_line_by_the_difference_at_equal_x() -> None:
    order, n = np.random.default_rng(0).permutation(1000), 1000

    def line(*points: tuple[float, float]) -> list[LinePoint]:
        cells = []
        for x, y in points:
            record = make_record(id=f"{x} {y}", n=n, clean=x, robust=y)
            flags[record.id] = {"x": order < x * n, "y": order < y * n}
            cells.append(tuple({0: Measurement(value, (record,), ((name,),))} for name, value in (("x", x), ("y", y))))
        return cells  # type: ignore[return-value]

    def shift(point: LinePoint) -> Shift | None:
        return shift_above(point, below, lambda record: flags[record.id])

    flags: dict[str, dict[str, Flags]] = {}
    below = line((0.6, 0.2), (0.5, 0.3), (0.4, 0.4), (0.46, 0.1))  # the last is below the second in both
    left, right, outside = line((0.45, 0.38), (0.55, 0.28), (0.7, 0.1))
    for point, x in ((left, 0.45), (right, 0.55)):
        found = shift(point)
        assert found
        assert (found.x, found.difference, found.seeds) == (pytest.approx(x), pytest.approx(0.03), 1)
        assert 0 < found.low < 0.03 < found.high < 0.06, "equal images: the rows' own noise cancels"
    assert shift(outside) is None
    assert shift_above(left, below, lambda record: {}) is None
    for measured in ({"records": (make_record(data_sha256="b" * 64),)}, {"slack": 0.01}):
        changed = tuple({0: replace(cell[0], **measured)} for cell in left)
        assert shift(changed) is None, "other images, or bounded"  # type: ignore[arg-type]
