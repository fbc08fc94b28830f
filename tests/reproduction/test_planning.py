"""Options, estimates and the plan of ``dkl reproduce``."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.assembly import on_launched
from dkl.config import TrainConfig, compose_config, run_folder, typed
from dkl.console import duration
from dkl.manifests import identities, load
from dkl.reproduction import durations, reproduce
from dkl.reproduction.durations import Span, assumed, forward_operations, passes
from dkl.reproduction.planning import parse, plan_jobs
from dkl.reproduction.reproduce import find_blocked


def test_operations_are_those_of_the_layers() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    operations, operators = forward_operations(model, (3, 4, 4))
    assert operations == 2 * (16 * 8 * 27 + 128 * 10)
    assert operators >= 3


def test_an_epoch_of_a_small_network_is_not_faster_than_its_launches() -> None:
    overrides = ["data=cifar100", "model=cifar_resnet56", "recipe=kd_teacher", "budget=paper"]
    seconds = assumed(typed(compose_config("train", overrides), TrainConfig)).training
    # 240 epochs of three passes: an eager ResNet-56 takes 5 to 60 ms per step of 64 images, never 54 s in all.
    run = seconds * (240 * 3 * 50_000)
    assert 5 * 60 < run.low < run.high < 3 * 3600


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (["batch_size=2048"], 256),
        (["batch_size=2048", "devices=8", "accumulate=5"], 52),
        (["batch_size=7"], 7),
    ],
)
def test_a_measurement_fits_where_a_part_of_a_batch_does(
    sizes: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    class Network(nn.Flatten):
        """Remembers the images it gets, and needs no time."""

        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images).requires_grad_()

    monkeypatch.setattr(durations, "build_model", lambda config: Network())
    monkeypatch.setattr(durations, "_operations", lambda config: (1.0, 1))
    monkeypatch.setattr(durations, "SECONDS_TO_MEASURE", 1e-9)
    overrides = ["trainer.device=cpu", *(f"trainer.{size}" for size in sizes)]
    durations.measure(typed(compose_config("train", overrides), TrainConfig))
    assert {len(images) for images in seen} == {expected}


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


def test_durations_have_a_unit_of_which_there_are_two() -> None:
    texts = [duration(seconds) for seconds in (0.2, 90, 150, 7200, 3 * 86_400)]
    assert texts == ["1 s", "90 s", "2 min", "2 h", "3 days"]


def test_ranges_are_said_to_be_ranges() -> None:
    spans = [Span(100, 190), Span(120, 600), Span(54, 1200), Span(0.1, 0.4)]
    assert [str(span) for span in spans] == ["about 2 min", "2 to 10 min", "54 s to 20 min", "about 1 s"]


def test_options_are_separated_from_overrides_of_training_and_of_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    found = parse(["table=2", "budget=smoke", "seed=1,2", "loss.gamma=1", "hydra/launcher=joblib", "dry_run=true"])
    assert (found.name, found.dry_run, found.launcher) == ("table-02", True, ("hydra/launcher=joblib",))
    assert found.request.seeds == (1, 2)
    assert found.request.overrides == ("loss.gamma=1", "paths.results=results/smoke")
    assert parse(["figure=3"]).name == "figure-03"
    assert parse(["budget=smoke", "paths.results=here"]).request.overrides == ("paths.results=here",)
    monkeypatch.setenv("DKL_RESULTS_DIR", "/my results/a=b")
    (found,) = parse(["budget=smoke"]).request.overrides
    assert compose_config("train", [found]).paths.results == "/my results/a=b/smoke"


def test_a_missing_library_blocks_only_the_rows_that_need_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchdistill", None)
    for name in [name for name in sys.modules if name.startswith("torchdistill.")]:
        monkeypatch.setitem(sys.modules, name, None)
    options = ["table=13", "budget=smoke", "row=resnet56-resnet20-rkd", f"paths.results={tmp_path}"]
    jobs = plan_jobs(parse(options))
    blocked = find_blocked(jobs)
    assert list(blocked) == ["resnet56-resnet20-rkd seed 0"]
    assert "pip install 'dkl[features]'" in blocked["resnet56-resnet20-rkd seed 0"]
    assert [planned.job.label for planned in jobs if planned.missing_library is None] == ["Teacher"]


def test_the_plan_knows_the_processes_that_torchrun_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    (job, *_) = plan_jobs(parse(["experiment=quickstart", "row=IKL-AT", "seed=0", f"paths.results={tmp_path}"]))
    assert job.run.settings.trainer.devices == 4
    assert job.run.folder == run_folder(on_launched(compose_config("train", job.job.train)))


@pytest.mark.parametrize("given", ["trainer.epochs=3", "trainer.threads=1"])
def test_rows_that_leave_their_table_are_warned_of(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, budget = "cifar10-mini", "smoke"
    options = parse([f"experiment={name}", "row=ikl-awp", f"budget={budget}", f"paths.results={tmp_path}", given])
    jobs = plan_jobs(options)
    reproduce.warn_of_changed_rows(load(name), jobs, options.request)
    warning = capsys.readouterr().err
    if given == "trainer.threads=1":
        assert not warning
        return
    assert f"ikl-awp, whose records only other tables show; to have them there, add [{given}] to at: smoke" in warning
    assert len(warning.splitlines()) == 1
    own = replace(load(name), rows=tuple(row for row in load(name).rows if row.name == "ikl-awp"))
    advised = replace(own, at={budget: (*own.at.get(budget, ()), given)})
    assert [identities(manifest, budget) == {"ikl-awp": jobs[0].run.row} for manifest in (own, advised)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(("rank", "measured"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_measures(
    rank: str, measured: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configs: list[TrainConfig] = []

    def measure(config: TrainConfig) -> durations.PassSeconds:
        configs.append(config)
        return durations.PassSeconds(Span(1, 2), Span(1, 2))

    monkeypatch.setattr(reproduce, "measure", measure)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    reproduce.reproduce(["experiment=quickstart", "row=IKL-AT", "seed=0", f"paths.results={tmp_path}", "dry_run=true"])
    assert bool(configs) == measured
