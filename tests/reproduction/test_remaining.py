"""The time left of a plan is corrected by what has finished; the plan is real, its durations are made up."""

import json
from pathlib import Path

import pytest
import torch

from dkl.manifests import load
from dkl.reproduction import durations, reproduce
from dkl.reproduction.durations import JobEstimate, PassSeconds, Remaining, Span
from dkl.reproduction.planning import JobProgress, PlannedJob, parse, plan_jobs
from tests.factories import make_record

ESTIMATE = JobEstimate(epoch=Span(5, 20), evaluations=(Span(50, 200),), images=64)
"""About 10 s per epoch, of which there are two, and 100 s of attacks."""


def assert_span(got: Span, low: float, high: float) -> None:
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


@pytest.fixture
def jobs(tmp_path: Path) -> list[PlannedJob]:
    return plan_jobs(parse(["experiment=quickstart", "budget=smoke", f"paths.results={tmp_path}"]))


def write_epoch(planned: PlannedJob, seconds: float) -> None:
    planned.run.folder.mkdir(parents=True)
    row = {"epoch": 1, "images_per_second": 64 / seconds}
    (planned.run.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize("error", [NotImplementedError, torch.OutOfMemoryError])
def test_a_network_that_cannot_be_measured_has_no_estimate(
    jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """One that needs the values of its images cannot run without them, and one may be too large for the device."""

    def fail(config: object) -> PassSeconds:
        raise error

    monkeypatch.setattr(reproduce, "measure", fail)
    found, _ = reproduce.estimates(jobs)
    assert {estimate.epoch.high for estimate in found} == {0}


def test_finished_epochs_and_evaluations_correct_the_time_left(
    jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: dict[str, str] = {}
    left = Remaining(jobs, [ESTIMATE, ESTIMATE], failures)
    spans, corrected = left()
    for span in spans:
        assert_span(span, 2 * 5 + 50, 2 * 20 + 200)
    assert not corrected
    left.say()
    assert capsys.readouterr().err == ""  # nothing is known that the plan has not said

    write_epoch(jobs[0], 3)
    spans, corrected = left()
    assert_span(spans[0], 3 + 50, 3 + 200)
    assert_span(spans[1], 0.7 * 2 * 3 + 50, 1.4 * 2 * 3 + 200)
    assert corrected
    reproduce.print_plan(load("quickstart"), jobs, left, "on this machine")
    assert "left: 107 s to 7 min on this machine, corrected by" in capsys.readouterr().err

    done = {jobs[0].title: JobProgress(2, 2, 1, 1), jobs[1].title: JobProgress(2, 2, 0, 1)}
    monkeypatch.setattr(durations, "progress_of", lambda job, run, records: done[job.title])
    monkeypatch.setattr(
        durations, "records_of", lambda job, run, records: [make_record(seconds=30.0)] * done[job.title].evaluations
    )
    spans, _ = left()
    assert_span(spans[0], 0, 0)
    assert_span(spans[1], 0.7 * 30, 1.4 * 30)
    left.say()
    assert capsys.readouterr().err == "about 30 s left, by the epochs and evaluations so far\n"
    failures[jobs[1].title] = "the disk is full"
    assert sum(span.high for span in left()[0]) == 0


def test_the_corrected_time_is_printed_while_the_jobs_run(
    jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(durations, "FIRST_REPORT", 0.01)
    said = durations.threading.Event()
    left = Remaining(jobs, [ESTIMATE, ESTIMATE])
    monkeypatch.setattr(left, "say", said.set)
    with left.watched():
        assert said.wait(10)
