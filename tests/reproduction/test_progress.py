"""The progress of a job follows from its files and records."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dkl import records
from dkl.cli import main
from dkl.config import ComposedRun, compose_config
from dkl.manifests import ManifestJob
from dkl.reproduction.progress import progress_of

TRAIN = ("data=digits", "trainer.epochs=2", "trainer.threads=1", "data.train_size=64", "data.test_size=8")
JOB = ManifestJob("row", "IKL-AT", 0, TRAIN, (("attacks=pgd-2", "batch_size=8"), ("attacks=none",)))


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    return [*TRAIN, f"paths.results={tmp_path}"]


def test_progress_follows_metrics_and_records(tmp_path: Path, overrides: list[str]) -> None:
    run = ComposedRun(compose_config("train", overrides))

    def now() -> tuple[str, bool]:
        found = progress_of(JOB, run, records.load_all(tmp_path / "records")[0])
        return str(found), found.done

    assert now() == ("to do", False)
    folder = run.folder
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1}) + "\n")
    assert now() == ("to resume, epoch 1 of 2", False)
    main(["train", *overrides])
    assert now() == ("trained, 0 of 2 evaluations", False)
    evaluate = ["evaluate", f"run={folder}", f"paths.results={tmp_path}"]
    main([*evaluate, "attacks=none"])
    for other in ("eps=0.05", "n=4"):  # an evaluation with other settings is another one
        main([*evaluate, *JOB.evaluations[0], other])
    assert now() == ("trained, 1 of 2 evaluations", False)
    main([*evaluate, *JOB.evaluations[0], "n=8"])  # all test images
    assert now() == ("done", True)

    found = records.load_all(tmp_path / "records")[0]
    assert {(record.n, record.partial) for record in found} == {(8, False), (4, True)}
    rounded = ComposedRun(compose_config("train", [*overrides, "trainer.precision=bf16"]))
    assert progress_of(JOB, rounded, found).done  # tables show both in the same row
    unknown = [replace(record, training={}, config_hash="0") for record in found]
    assert str(progress_of(JOB, rounded, unknown)) == "to do"
    other_seed = ComposedRun(compose_config("train", [*overrides, "seed=1"]))
    assert str(progress_of(replace(JOB, seed=1), other_seed, found)) == "to do"
