"""An evaluation is a wandb run in the group of its training run, with the record's figures, tables and pictures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dkl.config import compose_config
from dkl.evaluation import evaluate
from dkl.evaluation.pictures import collect_pictures
from tests.evaluation.common import only_record, tiny_run
from tests.wandb_log import OFFLINE, apart, config, history, inspect, runs, summary

STEPS = 5
"""Steps per epoch of the run: 600 images in batches of 128."""


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with apart(tmp_path_factory.mktemp("wandb")):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), *OFFLINE, "seed=2")


def asked(run: Path, results: Path, *overrides: str) -> Any:
    common = [f"run={run}", f"paths.results={results}", "eps=0.06", "n=20", "threads=1"]
    return compose_config("evaluate", [*common, "attacks=[pgd-2,cw-2]", *overrides])


def newest(run: Path) -> Path:
    return runs(run)[-1]


def test_the_report_holds_the_records_figures(run: Path, tmp_path: Path) -> None:
    collect_pictures(asked(run, tmp_path, "attacks=pgd-2"))
    evaluate(asked(run, tmp_path, "label=named for this"))
    record, flags = only_record(tmp_path)
    training, reported = runs(run)[0], newest(run)
    (one,), (other) = inspect(training, "run"), inspect(reported, "run")[0]
    assert (one["job_type"], other["job_type"]) == ("train", "evaluate")
    assert one["run_group"] == other["run_group"]
    assert other["run_id"] != one["run_id"]
    assert other["tags"] == ["named for this", "CE", "digits", "own"]
    assert config(reported)["evaluation"] == {
        "attacks": "pgd-2, cw-2", "norm": "linf", "eps": 0.06, "eps_text": "0.06", "n": 20, "batch_size": 200,
        "seed": 0, "weights": "last epoch 4", "package": False, "tolerance": None, "search": {},
    }  # fmt: skip
    assert config(reported)["seed"] == 2
    (row,) = history(reported)
    assert record.step_seconds
    epoch = record.step_seconds * STEPS
    expected = {
        "clean": record.clean, "robust": record.robust, "epoch_seconds": pytest.approx(epoch),
        "step_seconds": record.step_seconds, "evaluation_seconds": record.seconds,
        **{f"robust_after/{name}": result.robust for name, result in record.per_attack.items()},
    }  # fmt: skip
    assert set(expected) >= {"robust_after/pgd-2", "robust_after/cw-2"}
    shown = summary(reported)
    assert {name: shown[name] for name in expected} == expected  # the columns of wandb's table of runs
    assert (config(reported)["method"], config(reported)["loss_name"]) == ("named for this", "CE")

    def table(name: str) -> list[list[Any]]:
        return json.loads((reported / "files" / row[f"{name}.path"]).read_text())["data"]

    assert [line[:2] for line in table("attacks")] == [
        ["none", record.clean],
        *([name, result.robust] for name, result in record.per_attack.items()),
    ]
    classes = table("classes")
    images = np.array([line[1] for line in classes])
    assert images.sum() == len(flags["clean"]) == 20
    for column, expected in ((2, record.clean), (3, record.robust)):
        assert np.dot([line[column] for line in classes], images) / 20 == pytest.approx(expected)
    size = [row[f"images/pgd-2.{side}"] for side in ("width", "height")]
    assert size == [5 * 8, 3 * 8]  # five images; natural, adversarial, change
    assert inspect(reported, "exit")[0]["exit_code"] == 0


def test_an_evaluation_is_reported_once_and_again_only_if_that_failed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(runs(run))
    cfg = asked(run, tmp_path, "n=10")
    cfg.logger = {}
    evaluate(cfg)
    assert set(runs(run)) == before, "the logger is switched off"

    def fails(*args: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("dkl.evaluation.logger_report._class_table", fails)
        with pytest.raises(OSError, match="disk full"):
            evaluate(asked(run, tmp_path, "n=10"))  # the record exists, its report fails
    failed = newest(run)
    for _ in range(2):
        evaluate(asked(run, tmp_path, "n=10"))
    again = newest(run)
    assert set(runs(run)) - before == {failed, again}
    assert [inspect(part, "exit")[0]["exit_code"] for part in (failed, again)] == [1, 0]
    assert len({inspect(part, "run")[0]["run_id"] for part in (failed, again)}) == 1
    assert history(again)[0]["robust"] == only_record(tmp_path)[0].robust


def test_a_foreign_checkpoint_is_reported_to_the_logger_asked_for(run: Path, tmp_path: Path) -> None:
    given = [f"checkpoint={run / 'checkpoint.pt'}", "model=small_cnn", "data=digits", "label=theirs", *OFFLINE]
    cfg = compose_config("evaluate", [*given, f"paths.results={tmp_path}", "attacks=none", "n=20", "threads=1"])
    evaluate(cfg)
    (reported,) = runs(tmp_path / "runs" / "evaluations")
    (about,) = inspect(reported, "run")
    assert (about["job_type"], about["tags"]) == ("evaluate", ["theirs", "digits", "own"])
    assert about["run_group"].startswith("theirs-")
    (row,) = history(reported)
    assert row["clean"] == only_record(tmp_path)[0].clean
    assert "robust" not in row
