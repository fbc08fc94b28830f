"""The metrics of a record, in one table: columns of manifests and tables, loggers, cards and the page are read from it.

A metric that is added to ``METRICS`` is a column of accuracy tables (once a record has it), a ``metric`` of a
manifest's columns, and is reported to loggers, on cards and on the results page.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dkl.records.record import SHOTS, Record

Interval = tuple[float, float]


def _attacked(record: Record) -> bool:
    return not record.accuracy_only


def _masks(record: Record) -> bool:
    return record.segmented is not None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured quantity: a fraction, of which more is better, unless it has another ``unit``.

    - ``title``: heads its column. ``words`` describe one record's value; they are a format of the record.
    - ``value``: of a record; None if the record does not have it.
    - ``of``: the evaluations it belongs to. Equal values are named by what was evaluated: clean, top1, pixel_accuracy.
    - ``flags``: of a fraction of images, the flags that must all be true for an image to count. Such a metric has a
      binomial interval. ``best`` has none: it is a maximum over epochs.
    - ``unattacked``: a column of a manifest does not take it from evaluations with attacks.
    - ``optional``: people see its column only if a row has it.
    - ``key``: its name for loggers, ``data``: its name in tables for machines, if they are others than in ``METRICS``.
    """

    title: str
    words: str
    value: Callable[[Record], float | None]
    of: Callable[[Record], bool] = lambda record: True
    flags: Callable[[Record], tuple[str, ...]] | None = None
    unattacked: bool = False
    optional: bool = False
    unit: str = "%"
    key: str = ""
    data: str = ""

    def measured(self, record: Record) -> float | None:
        """Return the value of ``record`` if the metric belongs to its kind of evaluation."""
        return self.value(record) if self.of(record) else None


METRICS = {
    "clean": Metric(
        title="Clean", words="clean", value=lambda record: record.clean, of=_attacked, flags=lambda record: ("clean",)
    ),
    "top1": Metric(
        title="Top-1",
        words="clean",
        value=lambda record: record.clean,
        of=lambda record: record.accuracy_only and not _masks(record),
        flags=lambda record: ("clean",),
        key="clean",
    ),
    "miou": Metric(
        title="Mean IoU",
        words="mean IoU",
        value=lambda record: None if record.segmented is None else record.segmented.miou,
        of=_masks,
    ),
    "pixel_accuracy": Metric(
        title="Pixel accuracy", words="pixel accuracy", value=lambda record: record.clean, of=_masks, key="clean"
    ),
    "top5": Metric(
        title="Top-5",
        words="clean, top-5",
        value=lambda record: record.top5,
        of=lambda record: not _masks(record),
        flags=lambda record: ("top5",),
        unattacked=True,
    ),
    "robust": Metric(
        title="Robust",
        words="robust after all attacks",
        value=lambda record: record.robust,
        of=_attacked,
        flags=lambda record: ("clean", *record.attacks),
    ),
    **{
        name: Metric(
            title=name.capitalize(),
            words=f"mean of classes with {name} training images",
            value=lambda record, name=name: (record.shots or {}).get(name),  # type: ignore[misc]  # its default
            optional=True,
        )
        for name in SHOTS
    },
    "corrupted": Metric(
        title="Corrupted", words="common corruptions, mean", value=lambda record: record.corrupted, optional=True
    ),
    "best": Metric(
        title="Best epoch",
        words="best epoch ({0.best_epoch}), chosen on the test set",
        value=lambda record: record.best,
        unattacked=True,
        optional=True,
        data="best_epoch",
    ),
    "step_seconds": Metric(
        title="Step", words="seconds of a training step", value=lambda record: record.step_seconds, unit="s"
    ),
}
"""The metrics by name."""

TEST = "test_"
"""Begins the names of what a task's own ``test`` measures."""


def metric_of(name: str) -> Metric | None:
    """Return the metric ``name``: one of ``METRICS``, or ``test_NAME`` of a task; None for any other name."""
    if not name.startswith(TEST):
        return METRICS.get(name)
    key = name.removeprefix(TEST)
    return Metric(title=key, words=key, value=lambda record: (record.tests or {}).get(key), optional=True)


def wilson(fraction: float, n: int) -> Interval:
    """Return Wilson's 95 % interval of a ``fraction`` observed on ``n`` images.

    It holds every p with |fraction - p| <= z·sqrt(p(1 - p)/n), where z is the 97.5 % quantile of the normal.
    """
    from scipy import stats  # here, because it takes a second to import

    # A record has the fraction, not the count: rounding recovers it exactly.
    low, high = stats.binomtest(round(fraction * n), n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)
