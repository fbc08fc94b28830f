"""Reports to TensorBoard: the metrics of the run's files under their names, and its hyperparameters."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dkl.errors import NotInstalledError
from dkl.loggers import LoggerRun, LoggerTable, TensorBoardLogger, opened, reported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_metrics_and_hyperparameters_arrive_once_also_after_an_interruption(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    about = LoggerRun(
        name="name",
        job_type="train",
        group="IKL-0",
        tags=[],
        config={"loss": {"wmse_weight": 12.5}, "seed": 3},
        id_file=tmp_path / "wandb_id.txt",
    )
    rows = [{"epoch": epoch, "loss": 2.0 / epoch, "test_accuracy": epoch / 4} for epoch in (1, 2)]
    with pytest.raises(KeyboardInterrupt), opened(TensorBoardLogger(), about, rows[:1]):
        raise KeyboardInterrupt
    assert not reported(about.id_file)
    with opened(TensorBoardLogger(), about, rows[:1]) as logger:
        logger.log(rows[1])
        logger.report({"clean": 0.5}, {"attacks": LoggerTable(["a"], [["b"]])}, {"image": np.zeros((2, 2, 3))})
    assert reported(about.id_file)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    found = reader.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
    assert [event.value for event in found.Scalars("test_accuracy")] == [0.25, 0.5]
    assert found.Scalars("hparam/clean")[0].value == 0.5
    written = b"".join(path.read_bytes() for path in folder.rglob("*tfevents*"))
    assert b"loss.wmse_weight" in written


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(NotInstalledError, match=r"dkl\[tensorboard\]"):
        TensorBoardLogger()
