"""Jobs next to other processes and failing jobs, with training and evaluation replaced by quick stand-ins."""

from pathlib import Path

import pytest

from dkl.cli import main
from dkl.errors import BusyError, UserError
from dkl.manifests import ManifestJob
from dkl.reproduction import worker
from dkl.reproduction.options import parse
from dkl.reproduction.planning import PlannedJob, plan_jobs
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
