"""Bounds on the number of items with a property in a finite population, from a growing random sample of it.

``n`` of ``population`` items were drawn without replacement, and ``x`` of them have the property. The confidence
sequence is the prior-posterior ratio of Waudby-Smith and Ramdas (2020, "Confidence sequences for sampling without
replacement"): with a prior π on the unknown total F and the hypergeometric likelihood of x,

    C_n = {F : π(F) / π(F | x, n) < 1 / (1 − confidence)}.

The ratio at the true F is a nonnegative martingale with mean 1, so by Ville's inequality all C_n contain F at once with
the given confidence. The sample may therefore be looked at after every draw and stopped at any time. The prior
(F + 1)^-2 only decides the width: it is narrow if few items have the property. Does not import torch.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """The fewest and the most items, both included."""

    low: int
    high: int


LogChoose = Callable[[NDArray[np.int64] | int, NDArray[np.int64] | int], NDArray[np.float64]]
"""Logarithm of binomial coefficients, elementwise."""


def _log_choose(population: int, drawn: int, found: int, confidence: float) -> LogChoose:
    """Check a sample and return the logarithm of n over k, for n up to ``population``."""
    if not 0 <= found <= drawn <= population or not 0 < confidence < 1:
        raise ValueError(
            f"found={found}, drawn={drawn} and population={population} must be in this order, and "
            f"confidence={confidence} must be between 0 and 1"
        )
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, population + 1)))])
    return lambda n, k: np.asarray(log_factorial[n] - log_factorial[k] - log_factorial[n - k])


def count_interval(population: int, drawn: int, found: int, *, confidence: float = 0.95) -> Interval:
    """Bound the number of items with the property, of which ``found`` are among ``drawn`` items.

    Raises ValueError unless 0 <= found <= drawn <= population and 0 < confidence < 1.
    """
    log_choose = _log_choose(population, drawn, found, confidence)
    # The totals that are possible: the property of the items that were drawn is known.
    total = np.arange(found, population - (drawn - found) + 1)
    likelihood = log_choose(total, found) + log_choose(population - total, drawn - found)
    likelihood -= log_choose(population, drawn)
    prior = -2 * np.log(np.arange(population + 1) + 1.0)
    evidence = np.logaddexp.reduce(prior[total] + likelihood) - np.logaddexp.reduce(prior)
    kept = total[evidence - likelihood < -np.log(1 - confidence)]
    return Interval(int(kept[0]), int(kept[-1]))


def draws_needed(population: int, drawn: int, found: int, *, width: int, confidence: float = 0.95) -> int:
    """The smallest sample whose interval is at most ``width`` wide if no further item with the property is found.

    At least ``drawn``. The whole population always suffices.
    """

    def is_narrow(sample: int) -> bool:
        low, high = count_interval(population, sample, found, confidence=confidence)
        return high - low <= width

    return drawn + bisect_left(range(drawn, population), True, key=is_narrow)


def most_in_population(population: int, drawn: int, found: int, *, confidence: float = 0.95) -> int:
    """The most items that can have the property, if one sample of ``drawn`` items, fixed in advance, has ``found``.

    The exact upper bound of the hypergeometric distribution: the largest total under which at most ``found`` items are
    drawn with a probability above 1 − confidence. It is tighter than ``count_interval``, and holds for one look only.
    Raises ValueError as ``count_interval``.
    """
    log_choose = _log_choose(population, drawn, found, confidence)

    def unlikely(total: int) -> bool:
        hits = np.arange(max(0, drawn - (population - total)), min(found, total) + 1)
        terms = log_choose(total, hits) + log_choose(population - total, drawn - hits)
        likelihood = np.logaddexp.reduce(terms, initial=-np.inf) - log_choose(population, drawn)
        return bool(likelihood <= np.log(1 - confidence))

    # The probability falls with the total.
    totals = range(found + 1, population - (drawn - found) + 1)
    return found + bisect_left(totals, True, key=unlikely)


def fewest_without_hit(population: int, most: int, *, confidence: float = 0.95) -> int:
    """The smallest sample that, without an item with the property, bounds their number by ``most``.

    The bound is that of ``most_in_population``. At most the whole population.
    """

    def is_enough(drawn: int) -> bool:
        return most_in_population(population, drawn, 0, confidence=confidence) <= most

    return 1 + bisect_left(range(1, population), True, key=is_enough)
