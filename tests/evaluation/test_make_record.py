"""What a record keeps of its run: the metrics of every epoch, the duration of a step, and which images had labels."""

import csv
import hashlib
import statistics
from pathlib import Path

import numpy as np
import pytest

from dkl import records
from dkl.data import digits
from dkl.storage import checkpoint
from tests.evaluation.common import evaluate_run, tiny_run


def test_a_record_keeps_its_runs_curves_and_the_duration_of_a_step(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", "trainer.epochs=3", "trainer.batch_size=50")
    record, _ = evaluate_run(run, tmp_path, "attacks=none")
    path = tmp_path / "records" / f"{record.id}.json"
    assert path.with_suffix(".csv").read_bytes() == (run / "metrics.csv").read_bytes()
    with (run / "metrics.csv").open(newline="") as file:
        seconds = [50 / float(row["images_per_second"]) for row in csv.DictReader(file)]
    assert len(seconds) == len(records.load_curves(path)) == 3
    assert record.step_seconds == statistics.median(seconds)
    assert record.training_seconds == pytest.approx(sum(600 / 50 * step for step in seconds))
    assert record.few_labels is None

    content = checkpoint.read(run / "checkpoint.pt")
    for row in content["rows"]:
        del row["images_per_second"], row["epoch_seconds"]  # older runs do not have them
    checkpoint.save(run / "checkpoint.pt", content)
    older, _ = evaluate_run(run, tmp_path / "older", "attacks=none")
    assert (older.step_seconds, older.training_seconds) == (None, None)


def test_a_record_names_the_images_that_had_labels(tmp_path: Path) -> None:
    options = (
        "task=fixmatch",
        "loss=soft_ce",
        "trainer.epochs=1",
        "data.labels_per_class=3",
        "data.unlabeled.ratio=2",
        "seed=4",
        "trainer.batch_size=8",
    )
    run = tiny_run(tmp_path / "run", *options, "data.train_size=null")
    record, _ = evaluate_run(run, tmp_path, "attacks=none")
    draw, labels = np.random.RandomState(4), digits()[0].labels.numpy()
    chosen: list[int] = []
    for label in range(10):
        places = np.flatnonzero(labels == label)
        draw.shuffle(places)
        chosen += places[:3].tolist()
    positions = np.array(sorted(chosen), "<i8").tobytes()
    assert record.few_labels == records.FewLabels(per_class=3, seed=4, sha256=hashlib.sha256(positions).hexdigest())
    assert records.load(tmp_path / "records" / f"{record.id}.json") == record
