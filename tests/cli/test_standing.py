"""How far a job is said to be, and how long it is said to take."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dkl import records
from dkl.cli import main
from dkl.config import TrainConfig, compose_config, run_folder, typed
from dkl.errors import UserError
from dkl.manifests import ManifestJob
from dkl.reproduction.estimate import duration, forward_operations, passes
from dkl.reproduction.options import SMOKE_RESULTS, parse
from dkl.reproduction.planning import find_blocked, plan_jobs
from dkl.reproduction.progress import progress_of

TRAIN = ("data=digits", "trainer.epochs=2", "trainer.threads=1", "data.train_size=64", "data.test_size=8")
JOB = ManifestJob("row", "IKL-AT", 0, TRAIN, (("attacks=pgd-2", "batch_size=8"), ("attacks=none",)))


def test_a_jobs_standing_follows_its_files(tmp_path: Path) -> None:
    overrides = [*TRAIN, f"paths.results={tmp_path}"]
    cfg = compose_config("train", overrides)

    def now() -> tuple[str, bool]:
        found = progress_of(JOB, cfg, records.load_all(tmp_path / "records")[0])
        return str(found), found.done

    assert now() == ("to do", False)
    folder = run_folder(cfg)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert now() == ("to resume, epoch 1 of 2", False)
    main(["train", *overrides])
    assert now() == ("trained, 0 of 2 evaluations", False)
    evaluate = ["evaluate", f"run={folder}", f"paths.results={tmp_path}"]
    main([*evaluate, "attacks=none"])
    assert now() == ("trained, 1 of 2 evaluations", False)
    main([*evaluate, *JOB.evaluations[0], "eps=0.05"])
    assert now() == ("trained, 1 of 2 evaluations", False)
    main([*evaluate, *JOB.evaluations[0], "n=4"])
    assert now() == ("trained, 1 of 2 evaluations", False)
    main([*evaluate, *JOB.evaluations[0]])
    assert now() == ("done", True)
    elsewhere = compose_config("train", [*overrides, "trainer.precision=bf16"])  # a table takes the one for the other
    assert progress_of(JOB, elsewhere, records.load_all(tmp_path / "records")[0]).done
    silent = [replace(found, training={}, config_hash="0") for found in records.load_all(tmp_path / "records")[0]]
    assert str(progress_of(JOB, elsewhere, silent)) == "to do"
    other = compose_config("train", [*overrides, "seed=1"])
    assert str(progress_of(replace(JOB, seed=1), other, records.load_all(tmp_path / "records")[0])) == "to do"


def test_operations_are_those_of_the_layers() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    assert forward_operations(model, (3, 4, 4)) == 2 * (16 * 8 * 27 + 128 * 10)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data=digits", "task=classification"], 3),
        (["data=cifar10", "recipe=trades"], 1 + 2 * 10 + 6),
        (["data=cifar100", "recipe=official"], 1 + 2 * 5 + 6 + 6),
    ],
)
def test_forward_passes_of_a_recipe(overrides: list[str], expected: int) -> None:
    assert passes(typed(compose_config("train", overrides), TrainConfig)) == expected


def test_durations_are_said_in_the_unit_people_would_choose() -> None:
    said = [duration(seconds) for seconds in (0.2, 90, 150, 7200, 3 * 86_400)]
    assert said == ["1 s", "90 s", "2 min", "2 h", "3 days"]


def test_options_are_told_from_overrides_and_hydras_own() -> None:
    found = parse(["table=2", "budget=smoke", "seed=1,2", "loss.gamma=1", "hydra/launcher=joblib", "dry_run=true"])
    assert (found.name, found.dry_run, found.launcher) == ("table-02", True, ("hydra/launcher=joblib",))
    assert found.request.seeds == (1, 2)
    assert found.request.overrides == ("loss.gamma=1", f"paths.results={SMOKE_RESULTS}")
    assert parse(["figure=3"]).name == "figure-03"
    assert parse(["budget=smoke", "paths.results=here"]).request.overrides == ("paths.results=here",)
    with pytest.raises(UserError, match="give one"):
        parse(["table=2", "figure=3"])


def test_rows_of_a_library_that_is_not_installed_are_said_and_stop_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchdistill", None)
    for name in [name for name in sys.modules if name.startswith("torchdistill.")]:
        monkeypatch.setitem(sys.modules, name, None)
    options = ["table=13", "budget=smoke", "row=resnet56-resnet20-rkd", f"paths.results={tmp_path}"]
    tasks = plan_jobs(parse(options))
    lacking = find_blocked(tasks)
    assert list(lacking) == ["resnet56-resnet20-rkd seed 0"]
    assert "pip install 'dkl[features]'" in lacking["resnet56-resnet20-rkd seed 0"]
    assert [task.job.label for task in tasks if task.missing_library is None] == ["Teacher"]
