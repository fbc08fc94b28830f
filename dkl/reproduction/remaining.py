"""The time that is left of a plan: estimated before, and corrected by the epochs and evaluations that have finished.

Only files are read, so work of other processes and of other commands on the same results folder counts too.
"""

import json
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from dkl.console import say
from dkl.records import Record, load_all
from dkl.reproduction.estimate import JobEstimate
from dkl.reproduction.planning import PlannedJob
from dkl.reproduction.progress import progress_of, records_of
from dkl.reproduction.spans import Span, total

FIRST_REPORT, LONGEST_INTERVAL = 60.0, 1800.0
"""Seconds before the first corrected estimate, and the longest time between two. The interval doubles each time."""

LAST_EPOCHS = 5
"""Epochs whose median duration predicts the others."""

OF_OTHERS = Span(0.7, 1.4)
"""Assumed factors between a job and its estimate, corrected by the jobs that have finished."""


@dataclass(frozen=True)
class _State:
    """What a job has left, and how long the finished parts took relative to the middle of their estimates."""

    estimate: JobEstimate
    epochs: int
    evaluations: int
    epoch_ratio: float | None
    evaluation_ratio: float | None


class Remaining:
    """The time left of ``jobs``, given their ``estimates``; ``failures`` are the titles of jobs that will not run."""

    def __init__(
        self, jobs: Sequence[PlannedJob], estimates: Sequence[JobEstimate], failures: Collection[str] = ()
    ) -> None:
        self.jobs, self.estimates, self.failures = jobs, estimates, failures
        self.results = Path(jobs[0].run.settings.paths.results)

    def __call__(self) -> tuple[list[Span], bool]:
        """Return the seconds left of each job, and whether any finished part has corrected them."""
        records, _ = load_all(self.results / "records")
        states = [self._state(planned, one, records) for planned, one in zip(self.jobs, self.estimates, strict=True)]
        epoch = [state.epoch_ratio for state in states if state.epoch_ratio]
        evaluation = [state.evaluation_ratio for state in states if state.evaluation_ratio]
        spans = [
            _corrected(state.estimate.epoch, state.epoch_ratio, epoch) * state.epochs
            + total(_corrected(one, state.evaluation_ratio, evaluation) for one in _last(state))
            for state in states
        ]
        return spans, bool(epoch or evaluation)

    def say(self) -> None:
        """Print the corrected time, if something is left and something has finished."""
        spans, corrected = self()
        if corrected and (left := total(spans)).high > 0:
            say(f"{left} left, by the epochs and evaluations so far")

    def _state(self, planned: PlannedJob, one: JobEstimate, records: Sequence[Record]) -> _State:
        progress = progress_of(planned.job, planned.run, records)
        progress = replace(progress, run_needed=planned.progress.run_needed)
        if progress.done or planned.title in self.failures:
            epochs = evaluations = 0
        else:
            epochs = progress.total_epochs - progress.epochs
            evaluations = progress.total_evaluations - progress.evaluations
        seconds = _epoch_seconds(planned.run.folder / "metrics.jsonl", one.images)
        taken = sum(record.seconds for record in records_of(planned.job, planned.run, records))
        expected = sum(span.middle for span in one.evaluations[: progress.evaluations])
        return _State(
            one,
            epochs,
            evaluations,
            seconds / one.epoch.middle if seconds and one.epoch.high else None,
            taken / expected if expected and taken else None,
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Print the corrected time after the first minute, and then less and less often, while the body runs."""
        stop = threading.Event()

        def watch() -> None:
            interval = FIRST_REPORT
            while not stop.wait(interval):
                self.say()
                interval = min(2 * interval, LONGEST_INTERVAL)

        thread = threading.Thread(target=watch, name="remaining time", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()


def _last(state: _State) -> tuple[Span, ...]:
    """Return the estimates of the evaluations that are left."""
    every = state.estimate.evaluations
    return every[len(every) - state.evaluations :]


def _corrected(span: Span, own: float | None, others: Sequence[float]) -> Span:
    """Return ``span`` corrected by the ratio of the job's ``own`` finished parts, else by those of ``others``."""
    if own:
        return Span(span.middle, span.middle) * own
    return OF_OTHERS * (span.middle * median(others)) if others else span


def _epoch_seconds(metrics: Path, images: int) -> float | None:
    """Return the duration of an epoch of ``images`` images by a run's ``metrics``; None if it has none yet."""
    if not metrics.is_file():
        return None
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()[-LAST_EPOCHS:]]
    speeds = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    return images / median(speeds) if speeds else None
