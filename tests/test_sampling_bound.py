"""The bound of a count from a sample: its coverage over whole sequences of looks, and its edges."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from dkl.sampling_bound import count_interval, draws_needed


@pytest.mark.parametrize("total", [0, 1, 4, 30, 150])
def test_sequence_of_intervals_covers_the_total(total: int) -> None:
    # Looks are taken where the evaluation takes them, and at every 20th draw: the bound must hold at all of them.
    population, sequences = 300, 2000
    generator = np.random.default_rng(total)
    has = np.arange(population) < total
    looks = np.arange(20, population + 1, 20)
    known = {
        (n, x): count_interval(population, n, x)
        for n in looks.tolist()
        for x in range(min(n, total) + 1)
        if total - x <= population - n
    }
    missed = 0
    for _ in range(sequences):
        found = np.cumsum(generator.permutation(has))[looks - 1]
        intervals = [known[n, x] for n, x in zip(looks.tolist(), found.tolist(), strict=True)]
        missed += not all(low <= total <= high for low, high in intervals)
    assert missed / sequences <= 0.05


def test_interval_equals_the_ratio_in_exact_arithmetic() -> None:
    population, drawn, found = 12, 7, 2
    prior = [Fraction(1, (total + 1) ** 2) for total in range(population + 1)]
    likelihood = [
        Fraction(comb(total, found) * comb(population - total, drawn - found), comb(population, drawn))
        for total in range(population + 1)
    ]
    evidence = sum(p * q for p, q in zip(prior, likelihood, strict=True)) / sum(prior)
    kept = [total for total, value in enumerate(likelihood) if value * 20 > evidence]
    assert count_interval(population, drawn, found) == (min(kept), max(kept))


def test_all_items_drawn_leave_no_doubt() -> None:
    assert count_interval(50, 50, 7) == (7, 7)
    assert count_interval(0, 0, 0) == (0, 0)


def test_draws_needed_is_the_smallest_sample_of_that_width() -> None:
    needed = draws_needed(3100, 0, 0, width=20)
    assert count_interval(3100, needed, 0).high <= 20 < count_interval(3100, needed - 1, 0).high
    # No valid method stops earlier than this: a sample must miss 21 of 3,100 items with a probability of at most 5 %.
    assert comb(3100 - 21, needed) / comb(3100, needed) < 0.05
    assert draws_needed(3100, needed, 1, width=20) > needed
    assert draws_needed(10, 0, 0, width=0) == 10


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="found=3, drawn=2"):
        count_interval(10, 2, 3)
