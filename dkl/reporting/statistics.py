"""Statistics of a column: its value at each seed of a row, means and intervals over seeds, and paired comparisons.

Accuracies are fractions in [0, 1]; intervals are 95 % confidence intervals.

A run can have several evaluations. The one that counts has the column's attacks, their precision and the radius (Linf),
evaluates the weights that the column names or the recipe keeps (the best if it selects, else the average, else the
last) and has the most images. A part of the test set counts only in a column of so many images. Of equal ones the
newest counts.

Two rows are compared on the same seeds and the same test images.

One common seed: the images are the sample. Let b of n images be right in the first row only and c in the second only.
p is that of McNemar's exact test, which asks whether b is Binomial(b + c, 1/2). The interval of (b - c)/n is that of
Agresti and Min (2005): Wald's, after 1/2 is added to b, to c, and to each of the other two counts.

Several common seeds: both seeds and images are sampled. The squared error of the mean difference has two parts, s²/k
and r²/n, where s is the standard deviation of the differences of k seeds and r that of the mean differences of n
images. The half width of the interval is the root of the sum of t²·part, where t is Student's quantile with the degrees
of freedom of the part, k - 1 or n - 1; p is the level at which the interval touches 0. Welch's degrees of freedom would
be wrong here: two or three seeds often lie close together by chance, and their part would then count as known. Noise
that both parts share is counted twice. So the intervals are too wide rather than too narrow. Without per-image flags it
is the paired t test over seeds.

The value of bounded AutoAttack counts only the images fooled in its sample. The accuracy may be as low as the lower end
of its bound, so the interval of a difference is longer by the mean slack of either row, the distance from the value to
that end, and p is that of the smallest possible difference.

Two lines of rows, such as those of two losses along their weights, are compared at equal x: the difference of y is
interpolated and averaged over the range of x that both lines have. Its interval is that of resampled test images, the
same ones for all rows.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dkl.errors import UserError
from dkl.manifests import Column
from dkl.records import Flags, Record
from dkl.records.metrics import METRICS, Interval, metric_of, wilson
from dkl.reporting.grouping import created_at, group, images_key, weights_kind
from dkl.threat import AUTOATTACK, SUITES, gives_result_of, parse_attacks, parse_eps

LoadFlags = Callable[[Record], Flags]

IMAGE_FRACTIONS = tuple(name for name, metric in METRICS.items() if metric.flags)
"""Metrics with a binomial interval over n images."""

USUAL_EPS = "8/255"
"""The radius of the paper's tables, for which its networks are published."""

_ROUNDING = 1e-12
"""Relative differences below this are rounding errors of equal values."""

_LEVEL = 0.95

_NO_SPREAD = 1e-24
"""Squared errors below this are rounding errors of equal differences."""

_LOG_SMALLEST_P = math.log(1e-12)
"""Smaller p values are reported as this one."""

_RESAMPLES = 500
"""Samples of test images behind the interval of a shift."""

_Test = tuple[float, float, float, float]
"""Difference, lower and upper end of its 95 % interval, and p value."""


@dataclass(frozen=True)
class SeedMean:
    """Mean over training seeds, and their sample standard deviation (None for a single seed)."""

    mean: float
    std: float | None

    @classmethod
    def over(cls, values: Sequence[float]) -> "SeedMean":
        """Compute the mean of ``values``, one per seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)

    def __str__(self) -> str:
        """Return percent, such as ``31.91 ± 0.20``; without ± if it would be 0.00, which says nothing about seeds."""
        spread = "0.00" if self.std is None else percent(self.std)
        return percent(self.mean) + ("" if spread == "0.00" else f" ± {spread}")


def percent(fraction: float) -> str:
    """Return ``fraction`` in percent with two decimals, as RobustBench writes accuracies."""
    return f"{100 * fraction:.2f}"


def has_spread(values: Sequence[float]) -> bool:
    """Whether ``values`` differ by more than rounding errors, so that they say how much seeds vary."""
    return max(values) - min(values) > _ROUNDING * max(map(abs, values))


def student(values: Sequence[float]) -> Interval | None:
    """Return Student's interval of the mean of k ``values``: mean ± t·s/sqrt(k), with k - 1 degrees of freedom.

    None if they have no spread, such as a single value.
    """
    if not has_spread(values):
        return None
    from scipy import stats  # here, because it takes a second to import

    seeds = SeedMean.over(values)
    assert seeds.std is not None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * seeds.std / math.sqrt(len(values))
    return seeds.mean - half, seeds.mean + half


def accuracy_interval(accuracies: Sequence[float], n: int | None, slack: Sequence[float] = (0.0,)) -> Interval | None:
    """Return the interval of a mean accuracy from one value per seed, each a fraction of ``n`` images.

    Several seeds give Student's interval over seeds, a single seed Wilson's over images. So do seeds of equal accuracy:
    Student's would have no width. It begins lower by the mean ``slack``, how far each accuracy may lie below its value,
    and is cut to [0, 1]. ``n`` is None for accuracies that are no fraction of images: there is none over images then.
    """
    interval = student(accuracies) or (wilson(accuracies[0], n) if n else None)
    return interval and (max(0.0, interval[0] - float(np.mean(slack))), min(1.0, interval[1]))


@dataclass(frozen=True)
class Measurement:
    """The ``value`` of a column at one seed (a fraction, or seconds), and the ``records`` it comes from.

    ``flags`` names, for each record, the flags that must be true for an image to count. It is empty if the value is not
    a mean over images. ``slack`` is how far the accuracy may lie below the value: more than 0 for bounded AutoAttack.
    """

    value: float
    records: tuple[Record, ...]
    flags: tuple[tuple[str, ...], ...] = ()
    slack: float = 0.0


def measure(records: Sequence[Record], key: str, columns: Mapping[str, Column]) -> dict[int, Measurement]:
    """Return the column ``key`` by seed, in the order of seeds. Seeds that lack a part of the column are left out."""
    column = columns[key]
    # A column over other columns is combined from their values at the same seed.
    if column.of:
        return _combine(column, [measure(records, part, columns) for part in column.of])
    metric = metric_of(column.metric)
    if metric is None:
        return {}

    def has_weights(record: Record) -> bool:
        """Whether the weights are those of the column, or those that the recipe of the run keeps."""
        selects = (record.training.get("selection") or {}).get("every")
        kept = "best" if selects else "average" if record.training.get("averaging") else "last"
        return weights_kind(record) == (column.weights or kept)

    candidates = [
        record
        for record in records
        if metric.measured(record) is not None
        and (record.accuracy_only or not metric.unattacked)
        and _has_threat_model(record, column)
        # All of the test set unless the column has a number of images.
        and (record.n == column.n if column.n else not record.partial)
        and has_weights(record)
    ]
    by_seed: dict[int, Measurement] = {}
    for record in _comparable(candidates):
        value, flags = metric.measured(record), (metric.flags(record),) if metric.flags else ()
        assert value is not None
        assert record.seed is not None
        slack = record.slack if column.metric == "robust" else 0.0
        by_seed[record.seed] = Measurement(value, (record,), flags, slack)
    return dict(sorted(by_seed.items()))


def measure_weights(records: Sequence[Record], key: str, columns: Mapping[str, Column]) -> dict[int, Measurement]:
    """Return the column ``key`` on published weights, as of seed 0; of several evaluations, that of the most images.

    Bounded AutoAttack counts in columns of AutoAttack, and so does a search in other precision. Clean accuracy needs no
    attack.
    """
    column = columns[key]
    if column.of:
        return _combine(column, [measure_weights(records, part, columns) for part in column.of])
    metric, attacks = METRICS.get(column.metric), parse_attacks(column.attacks)
    asked = SUITES["bounded"] if set(attacks) == set(AUTOATTACK) else attacks
    eps = round(parse_eps(column.eps or USUAL_EPS), 9)
    measured = [
        (record.n, record.bound is None, created_at(record), record, value)
        for record in records
        if metric and (value := record.clean if column.metric == "clean" else metric.measured(record)) is not None
        if column.metric != "robust"
        or (gives_result_of(record.attacks, asked) and record.norm == "Linf" and round(record.eps, 9) == eps)
    ]
    if not measured or metric is None:
        return {}
    *_, record, value = max(measured)
    slack = record.slack if column.metric == "robust" else 0.0
    return {0: Measurement(value, (record,), (metric.flags(record),) if metric.flags else (), slack)}


def _has_threat_model(record: Record, column: Column) -> bool:
    """Whether the record has the column's attacks, precision and radius. Only robust accuracy asks for them."""
    if column.metric != "robust":
        return True
    # A column without a radius uses the dataset's default, which the run's configuration has.
    eps = parse_eps(record.training["data"]["eps"] if column.eps is None else column.eps)
    same_attacks = gives_result_of(record.attacks, parse_attacks(column.attacks))
    same_attacks = same_attacks and record.search.get("precision", "float32") == column.precision
    return same_attacks and record.norm == "Linf" and round(record.eps, 9) == round(eps, 9)


def _comparable(candidates: Sequence[Record]) -> list[Record]:
    """Return one evaluation per seed, all on the same test images, with masks predicted in the same way.

    Of several sets of images the largest counts, then the one with the most seeds, then the newest.
    """
    # Values on different images must not be averaged together.
    by_images = group(candidates, images_key).values()
    by_seed = (group(same, lambda record: record.seed) for same in by_images)
    newest = [[max(again, key=created_at) for again in seeds.values()] for seeds in by_seed]
    return max(newest, key=lambda same: (same[0].n, len(same), max(map(created_at, same))), default=[])


def _combine(column: Column, parts: Sequence[Mapping[int, Measurement]]) -> dict[int, Measurement]:
    """Return the mean or minimum over other columns, at the seeds that have all of them."""
    by_seed: dict[int, Measurement] = {}
    for seed in sorted(set.intersection(*map(set, parts))):
        here = [part[seed] for part in parts]
        values = [part.value for part in here]
        records = tuple(record for part in here for record in part.records)
        if column.metric == "min":
            lowest = min(part.value - part.slack for part in here)
            by_seed[seed] = Measurement(min(values), records, slack=min(values) - lowest)
        else:
            # A mean of fractions of images is itself a mean over images, unless one part has no flags.
            flags = tuple(names for part in here for names in part.flags)
            all_have_flags = len(flags) == len(records)
            slack = sum(part.slack for part in here) / len(here)
            by_seed[seed] = Measurement(sum(values) / len(values), records, flags if all_have_flags else (), slack)
    return by_seed


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The ``difference`` of two rows, its 95 % interval and its p value, over ``seeds`` and ``n`` images."""

    difference: float
    low: float
    high: float
    p: float
    seeds: tuple[int, ...]
    n: int
    test: str

    def agrees(self, margin: float | None, more_is_better: bool) -> bool | None:
        """Whether the rows are as claimed: the first better, or both the same up to a ``margin``; None if not visible.

        Without a margin, the difference must be separated from 0.
        """
        if margin is None:
            return (self.difference > 0) == more_is_better if self.separates else None
        if -margin <= self.low and self.high <= margin:
            return True
        return False if self.low > margin or self.high < -margin else None

    @property
    def separates(self) -> bool:
        """Whether the interval excludes 0, and p is below 5 %: the exact test of one seed may differ near the limit."""
        return not self.low <= 0 <= self.high and self.p < 1 - _LEVEL


def compare(
    better: Mapping[int, Measurement], than: Mapping[int, Measurement], load: LoadFlags, *, largest: float = 1.0
) -> Comparison:
    """Compare ``better`` minus ``than``, both by seed.

    The interval is cut at ``largest``, the largest possible difference: 1 for accuracies. Raises UserError if there is
    nothing to pair, or nothing to estimate a spread from; the message says what is missing.
    """
    seeds = tuple(seed for seed in better if seed in than and _images(better[seed]) == _images(than[seed]))
    if not seeds:
        raise UserError("no seed in common on the same test images")
    pairs = [(better[seed], than[seed]) for seed in seeds]
    # Per seed, then per seed and image: the second is None for records without flags.
    differences = np.array([one.value - other.value for one, other in pairs])
    per_seed = [_image_differences(one, other, load) for one, other in pairs]
    images = [scores for scores in per_seed if scores is not None]
    has_images = len(images) == len(per_seed) and len(set(map(len, images))) == 1
    slack = (float(np.mean([one.slack for one, _ in pairs])), float(np.mean([other.slack for _, other in pairs])))
    if len(seeds) > 1:
        # The images' part of the error comes from differences averaged over seeds.
        samples = [differences, np.mean(images, axis=0)] if has_images else [differences]
        result = _student(samples, slack)
        test = "t test over seeds and images" if has_images else "paired t test over seeds"
    elif not has_images:
        raise UserError("only one seed in common, and no per-image flags")
    elif set(np.unique(images[0])) <= {-1.0, 0.0, 1.0}:
        result, test = _mcnemar(images[0], slack), "McNemar's exact test"
    else:  # means over several records per image, such as over several radii
        result, test = _student([images[0]], slack), "paired t test over images"
    difference, low, high, p = result
    n, test = pairs[0][0].records[0].n, f"{test}, widened by AutoAttack's bounds" if any(slack) else test
    low, high = max(low - slack[0], -largest), min(high + slack[1], largest)
    return Comparison(difference=difference, low=low, high=high, p=p, seeds=seeds, n=n, test=test)


def _images(measured: Measurement) -> set[tuple[Hashable, ...]]:
    """Return the sets of test images behind a value."""
    return set(map(images_key, measured.records))


def _image_differences(one: Measurement, other: Measurement, load: LoadFlags) -> NDArray[np.float64] | None:
    """Return the difference of the two scores per image, [n]; None without per-image flags."""
    if not one.flags or not other.flags:
        return None
    try:
        scores = [_score(one, load), _score(other, load)]
    except (UserError, KeyError):
        return None
    return scores[0] - scores[1] if len(scores[0]) == len(scores[1]) else None


def _score(measured: Measurement, load: LoadFlags) -> NDArray[np.float64]:
    """Return per image the fraction of records in which all its flags are true, [n]."""
    parts = []
    for record, names in zip(measured.records, measured.flags, strict=True):
        flags = load(record)
        parts.append(np.logical_and.reduce([flags[name] for name in names]))
    return np.asarray(np.mean(parts, axis=0), dtype=np.float64)


def _mcnemar(differences: NDArray[np.float64], slack: tuple[float, float]) -> _Test:
    """Run McNemar's exact test on per-image differences of -1, 0 and 1.

    p is that of the smallest difference if the first row may lose ``slack[0]`` of all images, the second ``slack[1]``.
    """
    won, lost, n = int((differences > 0).sum()), int((differences < 0).sum()), len(differences)
    from scipy import stats  # here, because it takes a second to import

    # Agresti and Min's counts are won + 1/2 and lost + 1/2 of n + 2.
    center, disagreements = (won - lost) / (n + 2), (won + lost + 1) / (n + 2)
    half = float(stats.norm.ppf((1 + _LEVEL) / 2)) * math.sqrt((disagreements - center**2) / (n + 2))
    more, fewer = max(won, lost), min(won, lost) + round(slack[won < lost] * n)
    p = float(stats.binomtest(more, more + fewer).pvalue) if more > fewer else 1.0
    return (won - lost) / n, center - half, center + half, p


def _student(samples: list[NDArray[np.float64]], slack: tuple[float, float]) -> _Test:
    """Run a t test of the first sample's mean, whose squared error is the sum of the squared errors of all samples.

    p is that of the mean nearest to 0 if it may be smaller by ``slack[0]``, or larger by ``slack[1]``.
    """
    if any(len(sample) < 2 for sample in samples):
        raise UserError("one test image has no spread to test against")
    mean = float(np.mean(samples[0]))
    parts = np.array([np.var(sample, ddof=1) / len(sample) for sample in samples])
    freedom = np.array([len(sample) - 1 for sample in samples])
    if parts.sum() < _NO_SPREAD:
        raise UserError("all differences are equal, so they have no spread to test against")
    from scipy import optimize, stats  # here, because they take a second to import

    def half_width(log_p: float) -> float:
        return math.sqrt(float(np.sum(stats.t.isf(math.exp(log_p) / 2, freedom) ** 2 * parts)))

    half = half_width(math.log(1 - _LEVEL))
    nearest = max(abs(mean) - slack[mean < 0], 0.0)
    if nearest >= half_width(_LOG_SMALLEST_P):
        p = math.exp(_LOG_SMALLEST_P)
    else:
        p = math.exp(optimize.brentq(lambda log_p: half_width(log_p) - nearest, _LOG_SMALLEST_P, 0.0))
    return mean, mean - half, mean + half, p


LinePoint = tuple[Mapping[int, Measurement], Mapping[int, Measurement]]
"""The measurements of x and y of a row, by seed."""


@dataclass(frozen=True)
class Shift:
    """How far a row lies above a line at equal ``x``, and the 95 % interval."""

    difference: float
    low: float
    high: float
    x: float
    seeds: int


def shift_above(row: LinePoint, line: Sequence[LinePoint], load: LoadFlags) -> Shift | None:
    """Return by how much ``row`` lies above the frontier of ``line``, interpolated between its points.

    Points below another one in both x and y are not on the frontier. None if it does not reach that far, or if
    measurements lack per-image flags, have other test images, or are of bounded AutoAttack.
    """
    cells = [one[axis] for axis in range(2) for one in (row, *line)]
    measured = [one for cell in cells for one in cell.values()]
    if len(set().union(*map(_images, measured))) > 1 or any(one.slack for one in measured):
        return None
    try:
        scores = np.array([np.mean([_score(one, load) for one in cell.values()], axis=0) for cell in cells])
    except (UserError, KeyError, ValueError):  # ValueError: different numbers of test images
        return None
    # Poisson's bootstrap. The first sample is all images.
    samples = np.random.default_rng(0).poisson(1.0, (_RESAMPLES, scores.shape[1]))
    samples[0] = 1
    means = (samples @ scores.T / samples.sum(1, keepdims=True)).reshape(_RESAMPLES, 2, -1)
    gaps = []
    for (x, *others), (y, *heights) in means:
        at, best = np.array(sorted(zip(others, heights, strict=True))).T
        kept = best >= np.maximum.accumulate(best[::-1])[::-1]
        gaps.append(y - np.interp(x, at[kept], best[kept], left=math.nan, right=math.nan))
    if math.isnan(gaps[0]):
        return None
    low, high = np.nanpercentile(gaps, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return Shift(float(gaps[0]), float(low), float(high), float(means[0, 0, 0]), min(map(len, cells)))
