"""``dkl reproduce`` killed, run twice at once, or with a row that fails: nothing is lost, done twice or passed over."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dkl import records
from dkl.assembly import train
from dkl.cli import main
from dkl.config import compose_config, run_folder
from dkl.errors import BusyError, UserError
from dkl.files import is_locked, locked
from dkl.manifests import ManifestJob
from dkl.reproduction import worker
from dkl.reproduction.options import parse
from dkl.reproduction.planning import plan_jobs
from tests.cli.common import call

PROGRAM = [sys.executable, "-m", "dkl", "reproduce", "experiment=quickstart", "budget=smoke"]


def start(results: Path, *more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [*PROGRAM, *more, f"paths.results={results}"]
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def found(results: Path) -> dict[str, tuple[object, ...]]:
    """What each record says that does not depend on time: weights, accuracies and every flag."""
    said = {}
    for record in records.load_all(results / "records")[0]:
        flags = records.load_flags(results / "records" / f"{record.id}.json")
        said[record.id] = (
            *(record.checkpoint_sha256, record.clean, record.robust),
            *(flags[key].tolist() for key in sorted(flags)),
        )
    return said


def wait_for(results: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while not list(results.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("moment", ["runs/*/metrics.jsonl", "records/*.json"], ids=["training", "the second row"])
def test_killed_it_goes_on_and_ends_as_if_it_had_not_been(moment: str, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    wait_for(killed, moment, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(found(killed)) < 2
    for results in (killed, whole):
        main([*PROGRAM[3:], f"paths.results={results}"])
    assert found(killed) == found(whole)
    assert len(found(whole)) == 2
    left = {path.name for path in (killed / "runs").rglob("*") if path.is_file()}
    assert left == {path.name for path in (whole / "runs").rglob("*") if path.is_file()}


def test_two_at_once_share_the_jobs_and_do_none_twice(tmp_path: Path) -> None:
    both = [start(tmp_path, "seed=0,1") for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    made = found(tmp_path)
    runs = {path.name for path in (tmp_path / "runs").glob("generated-*")}
    assert len(made) == len(runs) == 4
    for run in runs:
        assert sum(text.count(f"{run}: done, loss") for text in said) == 1


@pytest.mark.parametrize("expected", [True, False], ids=["told", "unforeseen"])
def test_a_failing_row_is_told_at_the_end_and_stops_no_other(
    expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = worker._train_and_evaluate

    def run(job: ManifestJob, cfg: object) -> None:
        if job.label == "TRADES":
            raise UserError("the disk is full") if expected else ZeroDivisionError("a mistake of ours")
        real(job, cfg)

    monkeypatch.setattr(worker, "_train_and_evaluate", run)
    ended = call(capsys, *PROGRAM[3:], f"paths.results={tmp_path}")
    assert ended.status == 1
    assert [record.method for record in records.load_all(tmp_path / "records")[0]] == ["IKL-AT"]
    last = ended.err.splitlines()[-1]
    assert "failed: " in last
    if expected:
        assert "the disk is full" in last
    else:
        (log,) = (tmp_path / "runs").glob("*/error.log")
        assert str(log) in last
        assert "ZeroDivisionError: a mistake of ours" in log.read_text()


def test_a_broken_record_is_named_and_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*PROGRAM[3:], "row=IKL-AT", f"paths.results={tmp_path}"]
    main(arguments)
    (path,) = (tmp_path / "records").glob("*.json")
    text = path.read_text()
    other = path.with_name("other.json")
    other.write_text(text[: len(text) // 2])
    ended = call(capsys, *arguments)
    assert ended.status == 0
    assert f"left out: {other}" in ended.err
    assert ended.out.count("| IKL-AT") == 1


def test_jobs_run_through_a_launcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    ended = call(capsys, *PROGRAM[3:], f"paths.results={tmp_path}", *launcher)
    assert ended.status == 0, ended.err
    assert len(found(tmp_path)) == 2
    assert "IKL-AT" in ended.out


def test_a_row_that_fails_under_a_launcher_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = f"paths.results={tmp_path}"
    (task,) = plan_jobs(parse([*PROGRAM[4:], "row=TRADES", results]))
    broken = run_folder(task.cfg) / "checkpoint.pt"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no checkpoint")
    ended = call(capsys, *PROGRAM[3:], results, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert ended.status == 1
    assert [record.method for record in records.load_all(tmp_path / "records")[0]] == ["IKL-AT"]
    assert "| IKL-AT" in ended.out
    assert "failed: TRADES seed 0" in ended.err.splitlines()[-1]


def test_a_teacher_whose_run_is_gone_is_trained_anew_for_a_student(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "experiment=cifar100-mini-kd", "row=kd", "budget=smoke", f"paths.results={tmp_path}"]
    assert call(capsys, *arguments).status == 0
    (teacher,) = (tmp_path / "runs").glob("*resnet20*")
    shutil.rmtree(teacher)
    ended = call(capsys, *arguments)
    assert ended.status == 0
    assert not teacher.exists()
    for path in (tmp_path / "records").glob("*KD_from*"):
        path.unlink()
    shutil.rmtree(next((tmp_path / "runs").glob("*resnet8-kd*")))
    ended = call(capsys, *arguments)
    assert ended.status == 0, ended.err
    assert teacher.exists()


def test_a_run_that_another_process_trains_is_busy_also_on_several_devices(tmp_path: Path) -> None:
    cfg = compose_config(
        "train", ["data=digits", "trainer.devices=2", f"paths.results={tmp_path}", "trainer.threads=1"]
    )
    with locked(run_folder(cfg) / ".lock"):
        assert is_locked(run_folder(cfg) / ".lock")
        with pytest.raises(BusyError, match="another process is training"):
            train(cfg)
    assert not is_locked(run_folder(cfg) / ".lock")


def test_the_papers_size_without_a_gpu_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ended = call(capsys, "reproduce", "table=2", "row=ikl-basic", f"paths.results={tmp_path}")
    assert ended.status == 2
    said = "dkl reproduce table=2 row=ikl-basic budget="
    for part in (" h on one H100", f"{said}mini", f"{said}smoke", "trainer.device=cpu"):
        assert part in ended.err
    assert not list(tmp_path.iterdir())
