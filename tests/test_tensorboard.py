"""Reports to TensorBoard: the metrics of the run's files under their names, and its hyperparameters."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dkl.cli import main
from dkl.errors import NotInstalledError
from dkl.loggers import LoggerRun, LoggerTable, TensorBoardLogger, WandbLogger, opened
from tests.training.common import TINY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_metrics_and_hyperparameters_arrive_once_also_after_an_interruption(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    about = LoggerRun(
        name="name",
        job_type="train",
        group="IKL-0",
        tags=[],
        config={"loss": {"wmse_weight": 12.5}, "seed": 3},
        folder=tmp_path,
    )
    rows = [{"epoch": epoch, "loss": 2.0 / epoch, "test_accuracy": epoch / 4} for epoch in (1, 2)]
    with pytest.raises(KeyboardInterrupt), opened(TensorBoardLogger(), about, rows[:1]):
        raise KeyboardInterrupt
    assert not TensorBoardLogger().reported(about)
    with opened(TensorBoardLogger(), about, rows[:1]) as logger:
        logger.log(rows[1])
        logger.report({"clean": 0.5}, {"attacks": LoggerTable(["a"], [["b"]])}, {"image": np.zeros((2, 2, 3))})
    assert TensorBoardLogger().reported(about)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    found = reader.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
    assert [event.value for event in found.Scalars("test_accuracy")] == [0.25, 0.5]
    assert found.Scalars("hparam/clean")[0].value == 0.5
    written = b"".join(path.read_bytes() for path in folder.rglob("*tfevents*"))
    assert b"loss.wmse_weight" in written


def test_a_trained_run_is_read_back_also_after_a_report_to_another_logger(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    command = ["train", *TINY, "trainer.epochs=2", "attack.steps=1", "seed=3", f"paths.results={tmp_path}"]
    main(command)
    (run,) = (tmp_path / "runs").iterdir()
    # The run's report to wandb is complete, and so is no other logger's.
    about = LoggerRun(name="", job_type="train", group="", tags=[], config={}, folder=run)
    about.id_file("wandb").write_text("abcd finished")
    assert WandbLogger().reported(about)
    for _ in range(2):  # the second finds it reported
        main([*command, "logger=tensorboard"])
    (folder,) = (run / "tensorboard").iterdir()
    found = reader.EventAccumulator(str(folder)).Reload()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in set(rows[0]) - {"epoch"}:
        written = [(event.step, event.value) for event in found.Scalars(name)]
        assert written == [(row["epoch"], pytest.approx(row[name])) for row in rows]  # in single precision
    assert about.id_file("wandb").read_text() == "abcd finished"
    assert len(list(folder.iterdir())) == 2  # events, and hyperparameters


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(NotInstalledError, match=r"dkl\[tensorboard\]"):
        TensorBoardLogger()
