"""What a record keeps of the run behind it: every epoch's figures, and what a step took in the median one."""

import csv
import statistics
from pathlib import Path

import torch

from dkl import checkpoint, records
from dkl.cli import main
from dkl.models import create_model
from tests.evaluation.common import only_record, tiny_run


def test_a_record_keeps_its_runs_curves_and_the_seconds_of_a_step(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", "trainer.epochs=3", "trainer.batch_size=50")
    main(["evaluate", f"run={run}", f"paths.results={tmp_path}", "attacks=none", "threads=1"])
    (path,) = (tmp_path / "records").glob("*.json")
    assert path.with_suffix(".csv").read_bytes() == (run / "metrics.csv").read_bytes()
    with (run / "metrics.csv").open(newline="") as file:
        seconds = [50 / float(row["images_per_second"]) for row in csv.DictReader(file)]
    assert len(seconds) == len(records.load_curves(path)) == 3
    assert records.load(path).step_seconds == statistics.median(seconds)


def test_weights_from_elsewhere_have_neither(tmp_path: Path) -> None:
    torch.save(create_model("small_cnn", 10, in_chans=1).state_dict(), tmp_path / "weights.pt")
    model = ["model=small_cnn", "data=digits", "data.test_size=20"]
    main(["evaluate", f"checkpoint={tmp_path}/weights.pt", *model, f"paths.results={tmp_path}", "attacks=none"])
    record, _ = only_record(tmp_path)
    assert record.step_seconds is None
    assert not list((tmp_path / "records").glob("*.csv"))


def test_a_run_of_before_speeds_were_kept_has_no_seconds_of_a_step(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", "trainer.epochs=2")
    content = checkpoint.read(run / "checkpoint.pt")
    for row in content["rows"]:
        del row["images_per_second"]
    checkpoint.save(run / "checkpoint.pt", content)
    main(["evaluate", f"run={run}", f"paths.results={tmp_path}", "attacks=none", "threads=1"])
    assert only_record(tmp_path)[0].step_seconds is None
