"""The progress of a job follows from its files and records."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dkl import records
from dkl.cli import main
from dkl.config import ComposedRun, compose_config
from dkl.evaluation.segmentation import Windows
from dkl.manifests import ManifestJob
from dkl.records.record import Segmented
from dkl.reproduction.planning import progress_of, records_of
from tests.factories import make_record

TRAIN = ("data=digits", "trainer.epochs=2", "trainer.threads=1", "data.train_size=64", "data.test_size=8")
JOB = ManifestJob("row", "IKL-AT", 0, TRAIN, (("attacks=pgd-2", "batch_size=8"), ("attacks=none",)))


def predicted(*, mirrored: bool = False, long_side: int | None = None) -> Segmented:
    """A result of images predicted by windows of some size."""
    windows = Windows(size=(8, 12), mirrored=mirrored, long_side=long_side, fill=(0.0, 0.0, 0.0), batch_size=1)
    return Segmented(miou=0.5, iou={"sky": 0.5}, prediction=windows.text)


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


@pytest.mark.parametrize(
    ("asked", "done", "others"),
    [
        (("attacks=none",), {"segmented": predicted()}, {"segmented": predicted(mirrored=True)}),
        (("attacks=none", "long_side=64"), {"segmented": predicted(long_side=64)}, {"segmented": predicted()}),
        (("attacks=none", "corruptions=CIFAR-10-C"), {"corruptions": {"fog": [0.5] * 5}}, {}),
        (("eps=8/255", "package=true"), {"versions": {"attacks": "pyautoattack"}}, {"versions": {"attacks": "dkl"}}),
    ],
    ids=str,
)
def test_another_way_of_evaluating_is_not_done(
    overrides: list[str], asked: tuple[str, ...], done: dict[str, Any], others: dict[str, Any]
) -> None:
    run = ComposedRun(compose_config("train", overrides))
    job = replace(JOB, evaluations=(asked,))
    attacks = {"attacks": []} if "attacks=none" in asked else {}
    same = make_record(**attacks, weights="last epoch 2", config_hash=run.config_hash, n=8)
    for fields, finished in ((done, True), (others, False)):
        assert len(records_of(job, run, [replace(same, **fields)])) == finished
