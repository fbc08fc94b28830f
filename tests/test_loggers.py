"""Reports to Weights & Biases: one wandb run per folder, complete after interruptions, from the first process only."""

import base64
import hashlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dkl.assembly.parts
import dkl.training.fit
from dkl.assembly import build_logger, train
from dkl.config import compose_config, hashed, row_identity
from dkl.errors import NotInstalledError, UserError
from dkl.loggers import Logger, LoggerRun, LoggerTable, TrackioLogger, WandbLogger, opened
from tests.training.common import TINY, make_config, start
from tests.wandb_log import OFFLINE, apart, config, history, inspect, runs, summary, surroundings

KILLED = """
import os, sys
import dkl.training.fit as run
from dkl.cli import main
write = run.write_metrics
def write_and_die(rows, folder):
    write(rows, folder)
    if len(rows) == 2:
        os._exit(9)
run.write_metrics = write_and_die
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with apart(tmp_path_factory.mktemp("wandb")):
        yield


def about(folder: Path, **changed: Any) -> LoggerRun:
    fields: dict[str, Any] = {"name": "name", "job_type": "train", "group": "IKL-0", "tags": ["IKL"], "config": {}}
    return LoggerRun(**fields | changed, folder=folder)


def reported(folder: Path) -> bool:
    return WandbLogger().reported(about(folder))


def measured(folder: Path) -> list[dict[str, Any]]:
    """The run's metrics, as wandb should have them."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_reports_its_name_each_epoch_and_its_weights(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, *OFFLINE, "logger.artifact=true", "label='IKL, mine'", "seed=3", epochs=2)
    folder = train(cfg)
    (run,) = runs(folder)
    assert run.name.endswith((folder / "wandb_id.txt").read_text().split()[0])
    (header,) = inspect(run, "run")
    assert (header["project"], header["display_name"], header["job_type"]) == ("dkl", folder.name, "train")
    assert header["run_group"] == f"IKL, mine-{row_identity(hashed(make_config(tmp_path, 'seed=4', epochs=2)))}"
    assert header["tags"] == ["IKL, mine", "IKL", "digits", "own"]
    assert (config(run)["seed"], config(run)["loss"]["wmse_weight"]) == (3, 20)
    assert (config(run)["method"], config(run)["loss_name"]) == ("IKL, mine", "IKL")
    assert history(run) == [row | {"_step": row["epoch"]} for row in measured(folder)]
    last = measured(folder)[-1]
    assert {name: summary(run)[name] for name in last} == last  # the columns of wandb's table of runs
    (weights,) = inspect(run, "artifact")
    assert (weights["type"], weights["name"]) == ("model", folder.name)
    kept = {entry["path"]: entry for entry in weights["manifest"]["contents"]}
    assert set(kept) == {"checkpoint.pt", "config.yaml"}
    for name, entry in kept.items():
        expected = hashlib.md5((folder / name).read_bytes()).digest()
        assert base64.b64decode(entry["digest"]) == expected
        assert hashlib.md5(Path(entry["local_path"]).read_bytes()).digest() == expected
    assert inspect(run, "exit")[0]["exit_code"] == 0
    train(cfg)
    assert runs(folder) == [run]


def test_a_killed_run_continues_under_its_id_and_loses_no_epoch(tmp_path: Path) -> None:
    asked = ["train", *TINY, *OFFLINE, "paths.results=results", "trainer.epochs=3"]
    killed = start(["-c", KILLED, *asked], tmp_path, **surroundings(tmp_path / "wandb"))
    killed.communicate(timeout=600)
    assert killed.returncode == 9
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    identity = (folder / "wandb_id.txt").read_text()
    assert not reported(folder)
    train(make_config(tmp_path / "results", *OFFLINE, epochs=3))
    assert (folder / "wandb_id.txt").read_text().split() == [identity, "finished"]
    first, second = runs(folder)
    assert inspect(second, "run")[0]["run_id"] == identity
    assert first.name.endswith(identity)
    assert history(second) == [row | {"_step": row["epoch"]} for row in measured(folder)]
    assert not inspect(second, "artifact")


def test_a_failed_run_is_marked_as_failed_and_then_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise OSError("disk full")

    cfg = make_config(tmp_path, *OFFLINE, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(dkl.training.fit, "write_metrics", fails)
        with pytest.raises(OSError, match="disk full"):
            train(cfg)
    folder = train(cfg)
    first, second = runs(folder)
    assert [inspect(run, "exit")[0]["exit_code"] for run in (first, second)] == [1, 0]
    assert [row["_step"] for row in history(second)] == [1, 2]


def test_training_needs_no_wandb_and_the_run_can_be_reported_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)  # importing it fails, as if it were not installed
        folder = train(make_config(tmp_path, epochs=2))
    assert not [path for path in folder.iterdir() if "wandb" in path.name]
    train(make_config(tmp_path, *OFFLINE, epochs=2))
    (run,) = runs(folder)
    assert [row["loss"] for row in history(run)] == [row["loss"] for row in measured(folder)]


def test_only_the_first_of_several_processes_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose_config("train", list(OFFLINE))
    for rank, kind in ((0, WandbLogger), (1, Logger)):
        monkeypatch.setattr(dkl.assembly.parts, "rank", lambda rank=rank: rank)
        assert type(build_logger(cfg.logger)) is kind


def test_online_without_login_the_error_says_how_to_fix_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # no server listens there
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    monkeypatch.setattr("dkl.loggers.unreachable", lambda url: None)
    with pytest.raises(UserError, match=r"wandb login.*logger\.mode=offline.*wandb sync"):
        WandbLogger(mode="online").start(about(tmp_path))
    assert not (tmp_path / "wandb_id.txt").exists()


def test_online_without_a_network_one_line_is_printed_and_the_run_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed}")
    asked: dict[str, Any] = {}
    monkeypatch.setattr("wandb.init", lambda **given: asked.update(given))
    started = time.monotonic()
    WandbLogger(mode="online").start(about(tmp_path))
    assert time.monotonic() - started < 10
    assert asked["mode"] == "offline"
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("wandb: http")]
    for part in (f"127.0.0.1:{closed}", "refused", "offline", "wandb sync"):
        assert part in line


class FakeRun(SimpleNamespace):
    """A run that the site has up to ``step``."""

    def log(self, row: dict[str, Any], step: int, commit: bool) -> None:
        assert commit
        self.logged.append(step)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replace the site: ``asked`` are the arguments of ``wandb.init``; ``step`` and ``logged`` belong to the run."""
    seen = SimpleNamespace(asked={}, step=0, logged=[])

    def init(**asked: Any) -> FakeRun:
        seen.asked = asked
        return FakeRun(id=asked["id"], step=seen.step, logged=seen.logged)

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("dkl.loggers.unreachable", lambda url: None)
    return seen


PAST = [{"epoch": epoch} for epoch in (1, 2, 3, 4)]


def test_online_a_resumed_run_reports_only_the_missing_epochs(tmp_path: Path, site: SimpleNamespace) -> None:
    (tmp_path / "wandb_id.txt").write_text("abcd")
    site.step = 3
    with opened(WandbLogger(), about(tmp_path), PAST) as logger:
        logger.log({"epoch": 5})
    assert (site.asked["id"], site.asked["resume"], site.asked["mode"]) == ("abcd", "allow", "online")
    assert site.logged == [3, 4, 5]


def test_the_agent_of_a_sweep_chooses_the_id(
    tmp_path: Path, site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb_id.txt").write_text("mine finished")
    assert reported(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert reported(tmp_path)  # no sweep: a variable left over
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert not reported(tmp_path)
    with opened(WandbLogger(mode="offline"), about(tmp_path), PAST):
        pass
    assert (site.asked["id"], site.logged) == ("agents", [1, 2, 3, 4])
    assert reported(tmp_path)


def test_names_that_are_too_long_for_wandb_are_cut(tmp_path: Path, site: SimpleNamespace) -> None:
    WandbLogger().start(about(tmp_path, tags=["x" * 70, "IKL"], group="y" * 150 + "-12345678"))
    assert site.asked["tags"] == ["x" * 64, "IKL"]
    assert len(site.asked["group"]) == 128
    assert site.asked["group"].endswith("y-12345678")


def test_figures_tables_and_pictures_arrive_unchanged(tmp_path: Path) -> None:
    gray = np.linspace(0, 1 + 1e-6, 48).reshape(6, 8, 1).astype(np.float32)  # rounding may exceed 1
    color = np.linspace(0.2, 0.7, 144).reshape(6, 8, 3)
    with opened(WandbLogger(mode="offline"), about(tmp_path, job_type="evaluate")) as logger:
        logger.report(
            {"clean": 0.5}, {"t": LoggerTable(["a", "b"], [["x", None], ["y", 1.5]])}, {"g": gray, "c": color}
        )
    (run,) = runs(tmp_path)
    (row,) = history(run)
    assert row["clean"] == 0.5
    table = json.loads((run / "files" / row["t.path"]).read_text())
    assert (table["columns"], table["data"]) == (["a", "b"], [["x", None], ["y", 1.5]])
    for name, expected in (("g", gray.squeeze(-1)), ("c", color)):
        with Image.open(run / "files" / row[f"{name}.path"]) as picture:
            np.testing.assert_allclose(np.asarray(picture) / 255, expected, atol=0.51 / 255)


def test_without_a_logger_nothing_is_reported(tmp_path: Path) -> None:
    with opened(build_logger(compose_config("train", []).logger), about(tmp_path), PAST) as logger:
        logger.log({"epoch": 5})
        logger.keep([tmp_path])
    assert list(tmp_path.iterdir()) == []


def test_trackio_has_each_epoch_once_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    for rows in (PAST[:2], PAST):
        with opened(TrackioLogger(), about(tmp_path), rows[:-1]) as logger:
            logger.log(rows[-1] | {"loss": 0.5})
            if rows is PAST:
                image = np.zeros((2, 2, 3))
                logger.report({"clean": 0.5}, {"t": LoggerTable(["a"], [["x"]])}, {"image": image})
    assert TrackioLogger().reported(about(tmp_path))
    (run,) = storage.get_run_records("dkl")
    logged = storage.get_logs("dkl", run["name"], run_id=run["id"])
    assert [row["epoch"] for row in logged if "epoch" in row] == [1, 2, 3, 4]
    assert logged[3]["loss"] == logged[4]["clean"] == 0.5
    assert storage.get_run_config("dkl", run["name"], run_id=run["id"])["tags"] == ["IKL"]


def test_without_trackio_the_error_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(NotInstalledError, match=r"dkl\[trackio\]"):
        TrackioLogger()
