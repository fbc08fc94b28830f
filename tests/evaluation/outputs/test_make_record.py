"""What a record keeps of its run: the metrics of every epoch, and the duration of a training step."""

import csv
import statistics
from pathlib import Path

from dkl import checkpoint, records
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

    content = checkpoint.read(run / "checkpoint.pt")
    for row in content["rows"]:
        del row["images_per_second"]  # older runs do not have it
    checkpoint.save(run / "checkpoint.pt", content)
    assert evaluate_run(run, tmp_path / "older", "attacks=none")[0].step_seconds is None
