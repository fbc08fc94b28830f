"""Jobs next to other processes and failing jobs, with training and evaluation replaced by quick stand-ins."""

import sys
from pathlib import Path

import pytest

from dkl.cli import main
from dkl.errors import BusyError, UserError
from dkl.manifests import ManifestJob
from dkl.reproduction import reproduce, worker
from dkl.reproduction.planning import PlannedJob, parse, plan_jobs
from dkl.reproduction.worker import run_jobs
from dkl.storage.files import locked


@pytest.fixture
def jobs(tmp_path: Path) -> list[PlannedJob]:
    """A teacher and two students."""
    options = ["experiment=cifar100-mini-kd", "budget=smoke", "seed=0", f"paths.results={tmp_path}"]
    names = ("teacher resnet20", "kd", "dkd")
    return [planned for planned in plan_jobs(parse(options)) if planned.job.name in names]


def replace_training(monkeypatch: pytest.MonkeyPatch, failures: dict[str, Exception]) -> list[str]:
    """Record the names of the jobs that run; raise the error of those in ``failures``."""
    ran: list[str] = []

    def run(job: ManifestJob, cfg: object) -> None:
        ran.append(job.name)
        if error := failures.pop(job.name, None):
            raise error

    monkeypatch.setattr(worker, "_train_and_evaluate", run)
    monkeypatch.setattr(worker, "FIRST_WAIT", 0.01)
    return ran


def test_students_wait_for_a_teacher_that_another_process_trains(
    jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: dict[str, str] = {}
    ran = replace_training(monkeypatch, {"teacher resnet20": BusyError("another process is training it")})
    run_jobs(jobs, failures)
    assert ran == ["teacher resnet20", "teacher resnet20", "kd", "dkd"]
    assert failures == {}


def test_a_job_whose_lock_is_held_is_not_started(jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch) -> None:
    class EndOfTestError(Exception):
        pass

    def sleep(seconds: float) -> None:
        raise EndOfTestError

    ran = replace_training(monkeypatch, {})
    monkeypatch.setattr("time.sleep", sleep)
    with locked(jobs[1].run.folder / ".lock"), pytest.raises(EndOfTestError):
        run_jobs(jobs, {})
    assert ran == ["teacher resnet20", "dkd"]


def test_a_failed_teacher_fails_its_students_and_nothing_else(
    jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: dict[str, str] = {}
    ran = replace_training(monkeypatch, {"teacher resnet20": UserError("the disk is full")})
    run_jobs(jobs, failures)
    assert ran == ["teacher resnet20"]
    assert failures.pop("teacher resnet20 seed 0") == "the disk is full"
    assert failures == dict.fromkeys(("kd seed 0", "dkd seed 0"), "its teacher resnet20 seed 0 failed")


def test_an_unexpected_error_keeps_its_traceback(
    jobs: list[PlannedJob], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: dict[str, str] = {}
    ran = replace_training(monkeypatch, {"kd": ZeroDivisionError("a mistake of ours")})
    run_jobs(jobs, failures)
    assert ran == ["teacher resnet20", "kd", "dkd"]
    log = jobs[1].run.folder / "error.log"
    assert failures == {"kd seed 0": f"ZeroDivisionError: a mistake of ours (see {log})"}
    assert "ZeroDivisionError: a mistake of ours" in log.read_text()
    assert "failed: kd seed 0" in capsys.readouterr().err


def test_the_command_ends_with_1_and_the_reason_if_a_row_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_training(monkeypatch, {"TRADES": UserError("the disk is full"), "IKL-AT": UserError("the disk is full")})
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "experiment=quickstart", "budget=smoke", f"paths.results={tmp_path}"])
    assert stop.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "failed: TRADES seed 0, IKL-AT seed 0: the disk is full"


def test_failed_rows_are_reported_also_if_the_results_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def show(*arguments: object, html: bool) -> None:
        raise UserError("the tables cannot be written")

    replace_training(monkeypatch, {"TRADES": UserError("the disk is full")})
    monkeypatch.setattr(reproduce, "show_results", show)
    with pytest.raises(SystemExit):
        main(["reproduce", "experiment=quickstart", "budget=smoke", f"paths.results={tmp_path}"])
    last = capsys.readouterr().err.splitlines()[-2:]
    assert last == ["failed: TRADES seed 0: the disk is full", "error: the tables cannot be written"]


@pytest.mark.parametrize("library", ["matplotlib", "sklearn"])
def test_a_missing_library_of_the_figures_is_named_before_the_first_job(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = replace_training(monkeypatch, {})
    monkeypatch.setattr(reproduce, "estimates", lambda jobs: ([reproduce.no_estimate(one) for one in jobs], ""))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "experiment=quickstart", "budget=smoke", f"paths.results={tmp_path}", "html=true"])
    assert stop.value.code == 2
    assert f"{library} is not installed: pip install 'dkl[figures]'" in capsys.readouterr().err
    assert ran == []
