"""Whether one row of a table is better than another, in pairs: the same seeds, and the same test images.

With one seed in common the images are the sample. With b of them right in the one row alone and c in the other alone,
McNemar's exact test asks whether b is Binomial(b + c, 1/2), and Clopper and Pearson's interval for its share p gives
that of the difference, (2p - 1)(b + c)/n: it covers 0 exactly where the test does not reject.

With several, the seeds and the images both are. The squared error of the mean difference is the sum over both,
s²/k + t²/n, s over k seeds' differences and t over n images' mean differences, with Welch and Satterthwaite's degrees
of freedom (what the two share is counted twice, so intervals err on the wide side); without flags of single images it
is over the seeds alone, the paired t test.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dkl.errors import UserError
from dkl.records import Flags, Record
from dkl.reporting.statistics.measured import Measured

LoadFlags = Callable[[Record], Flags]

_NO_SPREAD = 1e-24
"""A squared error that is rounding: equal differences of fractions leave as much."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``difference`` of two rows with its 95 % interval and p value, over ``seeds`` and ``n`` images; fractions."""

    difference: float
    low: float
    high: float
    p: float
    seeds: tuple[int, ...]
    n: int
    test: str

    @property
    def separates(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def compare(better: Mapping[int, Measured], than: Mapping[int, Measured], load: LoadFlags) -> Comparison:
    """``better`` less ``than``, by seed. Raises UserError where there is nothing to pair, and says what is missing."""
    seeds = tuple(seed for seed in better if seed in than and _images(better[seed]) == _images(than[seed]))
    if not seeds:
        raise UserError("no seed in common on the same test images")
    ones, others = [better[seed] for seed in seeds], [than[seed] for seed in seeds]
    pairs = [_image_differences(one, other, load) for one, other in zip(ones, others, strict=True)]
    images = [pair for pair in pairs if pair is not None]
    whole = len(images) == len(pairs) and len({len(image) for image in images}) == 1
    differences = np.array([one.value - other.value for one, other in zip(ones, others, strict=True)])
    if len(seeds) > 1:
        samples = [differences, np.mean(images, axis=0)] if whole else [differences]
        found, test = _welch(samples), "t test over seeds and images" if whole else "paired t test over seeds"
    elif not whole:
        raise UserError("one seed in common, and no flags of single images")
    elif set(np.unique(images[0])) <= {-1.0, 0.0, 1.0}:
        found, test = _mcnemar(images[0]), "McNemar's exact test"
    else:
        found, test = _welch([images[0]]), "paired t test over images"
    difference, low, high, p = found
    n = ones[0].records[0].n
    return Comparison(difference=difference, low=low, high=high, p=p, seeds=seeds, n=n, test=test)


def _images(measured: Measured) -> set[tuple[int, str]]:
    """The test images a value is over."""
    return {(record.n, record.data_sha256) for record in measured.records}


def _image_differences(one: Measured, other: Measured, load: LoadFlags) -> NDArray[np.float64] | None:
    """What each image adds to one value less what it adds to the other, [n]; None without flags of single images."""
    if not one.flags or not other.flags:
        return None
    try:
        scores = [_score(one, load), _score(other, load)]
    except (UserError, KeyError):
        return None
    return scores[0] - scores[1] if len(scores[0]) == len(scores[1]) else None


def _score(measured: Measured, load: LoadFlags) -> NDArray[np.float64]:
    """The share of the records in which all of an image's flags hold, [n]."""
    parts = []
    for record, names in zip(measured.records, measured.flags, strict=True):
        flags = load(record)
        parts.append(np.logical_and.reduce([flags[name] for name in names]))
    return np.asarray(np.mean(parts, axis=0), dtype=np.float64)


def _mcnemar(differences: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Difference, interval and p value from differences of -1, 0 and 1, one an image."""
    won, lost, n = int((differences > 0).sum()), int((differences < 0).sum()), len(differences)
    if not won + lost:
        return 0.0, 0.0, 0.0, 1.0
    test = stats.binomtest(won, won + lost)
    interval = test.proportion_ci(0.95, method="exact")
    low, high = ((2 * share - 1) * (won + lost) / n for share in interval)
    return (won - lost) / n, float(low), float(high), float(test.pvalue)


def _welch(samples: list[NDArray[np.float64]]) -> tuple[float, float, float, float]:
    """The first sample's mean with an interval and a p value; the squared error is the sum of all samples' own."""
    mean = float(np.mean(samples[0]))
    parts = [(float(np.var(sample, ddof=1)) / len(sample), len(sample) - 1) for sample in samples]
    squared = sum(part for part, _ in parts)
    if squared < _NO_SPREAD:
        raise UserError("the differences are all the same, which leaves no spread to judge them by")
    degrees = squared**2 / sum(part**2 / freedom for part, freedom in parts)
    half = float(stats.t.ppf(0.975, degrees)) * math.sqrt(squared)
    p = 2 * float(stats.t.sf(abs(mean) / math.sqrt(squared), degrees))
    return mean, mean - half, mean + half, p
