"""``dkl reproduce`` killed, run twice at once, or through a launcher: nothing is lost or done twice."""

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from dkl import records
from dkl.assembly import train
from dkl.cli import main
from dkl.config import compose_config, run_folder
from dkl.errors import BusyError
from dkl.manifests import load
from dkl.reproduction.planning import parse, plan_jobs
from dkl.storage.files import is_locked, locked
from tests.cli.common import call
from tests.interruptions.forks import fork, wait

pytestmark = pytest.mark.slow

COMMAND = ["reproduce", "experiment=quickstart", "budget=smoke"]

EVALUATIONS = len(load("quickstart").evaluate)
"""Records per run."""


def content(results: Path) -> dict[str, tuple[object, ...]]:
    """What each record holds apart from times: weights, accuracies and every flag."""
    found = {}
    for record in records.load_all(results / "records")[0]:
        flags = records.load_flags(results / "records" / f"{record.id}.json")
        values = [flags[key].tolist() for key in sorted(flags)]
        found[record.id] = (record.checkpoint_sha256, record.clean, record.robust, *values)
    return found


def start(results: Path, log: Path, *more: str) -> int:
    """Start the command in another process, which prints to ``log``; returns its number."""
    return fork(partial(main, [*COMMAND, *more, f"paths.results={results}"]), log)


def kill_at(results: Path, pattern: str, log: Path) -> None:
    """Start the command and kill it as soon as a file matches ``pattern``."""
    number = start(results, log)
    while not list(results.glob(pattern)):
        assert os.waitpid(number, os.WNOHANG) == (0, 0), log.read_text()
        time.sleep(0.02)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


def test_killed_twice_it_ends_like_an_uninterrupted_command(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_at(killed, "runs/*/metrics.jsonl", tmp_path / "first")  # while the first row trains
    assert len(content(killed)) == 0
    kill_at(killed, "records/*.json", tmp_path / "second")  # while the first row is evaluated
    assert 0 < len(content(killed)) < EVALUATIONS
    for results in (killed, whole):
        main([*COMMAND, f"paths.results={results}"])
    assert content(killed) == content(whole)
    assert len(content(whole)) == 2 * EVALUATIONS
    left = [{path.name for path in (results / "runs").rglob("*") if path.is_file()} for results in (killed, whole)]
    assert left[0] == left[1]


def test_two_commands_share_the_jobs_and_do_none_twice(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("first", "second")]
    both = [start(tmp_path, log, "row=IKL-AT", "seed=0,1,2") for log in logs]
    ends = [wait(number, time.monotonic() + 300) for number in both]
    printed = [log.read_text() for log in logs]
    assert ends == [0, 0], printed
    runs = {path.name for path in (tmp_path / "runs").glob("generated-*")}
    assert len(runs) == 3
    assert len(content(tmp_path)) == 3 * EVALUATIONS
    for run in runs:
        assert sum(text.count(f"{run}: done, loss") for text in printed) == 1


def test_a_row_that_fails_under_a_launcher_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = f"paths.results={tmp_path}"
    (trades,) = plan_jobs(parse([*COMMAND[1:], "row=TRADES", results]))
    trades.run.folder.mkdir(parents=True)
    (trades.run.folder / "checkpoint.pt").write_bytes(b"no checkpoint")
    ended = call(capsys, *COMMAND, results, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert ended.status == 1
    methods = [record.method for record in records.load_all(tmp_path / "records")[0]]
    assert methods == ["IKL-AT"] * EVALUATIONS
    assert "  IKL-AT  " in ended.out
    assert "failed: TRADES seed 0" in ended.err.splitlines()[-1]


def test_a_deleted_teacher_is_trained_again_only_for_a_student(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "experiment=cifar100-mini-kd", "row=kd", "budget=smoke", "trainer.epochs=1"]
    arguments.append(f"paths.results={tmp_path}")
    assert call(capsys, *arguments).status == 0
    (teacher,) = (tmp_path / "runs").glob("*resnet20*")
    shutil.rmtree(teacher)
    assert call(capsys, *arguments).status == 0
    assert not teacher.exists()
    for path in (tmp_path / "records").glob("*-KD-*"):
        path.unlink()
    shutil.rmtree(next((tmp_path / "runs").glob("*resnet8-kd*")))
    ended = call(capsys, *arguments)
    assert ended.status == 0, ended.err
    assert teacher.exists()


def test_a_run_that_another_process_trains_is_busy_on_several_devices_too(tmp_path: Path) -> None:
    options = ["data=digits", "trainer.devices=2", f"paths.results={tmp_path}", "trainer.threads=1"]
    cfg = compose_config("train", options)
    with locked(run_folder(cfg) / ".lock"):
        assert is_locked(run_folder(cfg) / ".lock")
        with pytest.raises(BusyError, match="another process is training"):
            train(cfg)
    assert not is_locked(run_folder(cfg) / ".lock")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_budget_paper_without_a_gpu_is_refused_with_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = call(capsys, "reproduce", "table=2", "row=ikl-basic", f"paths.results={tmp_path}")
    assert ended.status == 2
    command = "dkl reproduce table=2 row=ikl-basic budget="
    for part in ("a rough range for one H100: 9 h to ", f"{command}mini", f"{command}smoke", "trainer.device=cpu"):
        assert part in ended.err
    assert not list(tmp_path.iterdir())
