"""Which weights are evaluated. The run's last, average and best weights each always predict another class."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from dkl.cli import main
from dkl.config import EvaluateConfig, compose_config, typed
from dkl.data import digits
from dkl.evaluation.job import prepare
from dkl.evaluation.subject import best_epoch
from dkl.models import create_model
from dkl.records import Record, load_all
from dkl.storage import checkpoint
from tests.evaluation.common import evaluate_run, only_record, tiny_run, trained


def always(state: dict[str, Tensor], label: int) -> dict[str, Tensor]:
    """Weights whose logits are highest for ``label``, whatever the image."""
    changed = {name: value.clone() for name, value in state.items()}
    weight, bias = list(changed)[-2:]
    changed[weight].zero_()
    changed[bias].copy_(torch.nn.functional.one_hot(torch.tensor(label), 10))
    return changed


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with last weights only."""
    return tiny_run(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """The run with weights for class 0 (last), 1 (average) and 2 (best)."""
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    content = checkpoint.read(folder / "checkpoint.pt")
    state = content["model"]
    checkpoint.save(folder / "checkpoint.pt", {**content, "model": always(state, 0), "average": always(state, 1)})
    best = {"model": always(state, 2), "epoch": 3, "weights": "average", "accuracy": 0.5, "attack": "cw-20"}
    checkpoint.save(folder / "best.pt", best | {"config": content["config"]})
    return folder


def evaluate(run: Path, *overrides: str) -> tuple[Record, int]:
    """The record of an evaluation of ``run``, and the one class whose images were classified correctly."""
    results = run.parent / f"results{len(list(run.parent.iterdir()))}"
    record, flags = evaluate_run(run, results, "attacks=[pgd-1]", *overrides)
    labels = digits()[1].balanced(40).labels
    (label,) = set(labels[torch.from_numpy(flags["clean"])].tolist())
    assert flags["clean"].sum() == (labels == label).sum()
    return record, label


def configure(run: Path, **values: Any) -> None:
    """Change keys of the run's configuration, in both of its files; ``__`` stands for a dot."""
    cfg, content = OmegaConf.load(run / "config.yaml"), checkpoint.read(run / "checkpoint.pt")
    for key, value in values.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    OmegaConf.save(cfg, run / "config.yaml")
    content["config"] = OmegaConf.to_container(cfg, resolve=True)
    checkpoint.save(run / "checkpoint.pt", content)


def test_the_best_epoch_of_another_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = checkpoint.read(run / "best.pt")
    best["config"]["optimizer"]["lr"] = 0.5
    checkpoint.save(run / "best.pt", best)
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={run}", f"paths.results={tmp_path}", "weights=best"])
    assert "best.pt was trained with optimizer.lr=0.5, not " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "label", "text", "file"),
    [
        ("last", 0, "last epoch 4", "checkpoint.pt"),
        ("average", 1, "average at epoch 4", "checkpoint.pt"),
        ("best", 2, "best epoch 3 (average, cw-20)", "best.pt"),
    ],
)
def test_the_weights_asked_for_are_evaluated(name: str, label: int, text: str, file: str, run: Path) -> None:
    record, found = evaluate(run, f"weights={name}")
    assert found == label
    assert (record.weights, record.checkpoint) == (text, f"run/{file}")
    assert record.synthetic is None


def test_the_default_is_the_runs_choice_then_the_average_then_the_last(run: Path) -> None:
    configure(run, evaluation__weights="best")
    assert evaluate(run)[1] == 2
    configure(run, evaluation__weights=None)
    assert evaluate(run)[1] == 1
    content = checkpoint.read(run / "checkpoint.pt")
    del content["average"]
    checkpoint.save(run / "checkpoint.pt", content)
    assert evaluate(run)[1] == 0


def test_each_weights_have_one_record(run: Path) -> None:
    results = f"paths.results={run.parent / 'together'}"
    for name in ("last", "average", "last"):
        main(["evaluate", f"run={run}", results, "attacks=none", f"weights={name}"])
    found = load_all(run.parent / "together" / "records")[0]
    assert len({record.checkpoint_sha256 for record in found}) == len(found) == 2


@pytest.mark.parametrize("asked", ["best", "average"])
def test_weights_that_a_run_lacks_are_refused(
    asked: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={plain}", f"paths.results={tmp_path}", f"weights={asked}"])
    error = capsys.readouterr().err
    assert f"weights={asked}" in error
    assert error.endswith("choose one of: last\n")


def test_a_foreign_checkpoint_has_one_set_of_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = [f"checkpoint={run / 'best.pt'}", "model=small_cnn", "data=digits", "data.test_size=40"]
    with pytest.raises(SystemExit):
        main(["evaluate", *file, f"paths.results={tmp_path / 'no'}", "weights=best"])
    assert "weights=best" in capsys.readouterr().err
    main(["evaluate", *file, f"paths.results={tmp_path / 'yes'}", "attacks=[pgd-1]"])
    record, _ = only_record(tmp_path / "yes")
    assert (record.weights, record.seed, record.step_seconds) == ("as in the file", None, None)
    assert not list((tmp_path / "yes" / "records").glob("*.csv"))


def test_a_model_is_named_by_its_title_its_name_or_its_target(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "weights.pt")
    overrides = [f"checkpoint={tmp_path / 'weights.pt'}", "model=small_cnn", "data=digits", f"paths.results={tmp_path}"]
    asked = typed(compose_config("evaluate", overrides), EvaluateConfig)
    without_name = {"_target_": "tests.evaluation.common.trained"}
    job = prepare(dataclasses.replace(asked, model=without_name))
    assert job.subject.architecture == "trained"
    assert job.id == f"digits-trained-weights-foreign-{job.key}"
    titled = dataclasses.replace(job.subject, model={**without_name, "name": "net", "title": "Net-1"})
    assert titled.architecture == "Net-1"


def test_the_same_weights_in_another_network_are_another_evaluation(tmp_path: Path) -> None:
    torch.save(create_model("small_cnn", 10, 1).state_dict(), tmp_path / "weights.pt")
    named = [f"checkpoint={tmp_path / 'weights.pt'}", "model=small_cnn", "data=digits", f"paths.results={tmp_path}"]
    changes: list[list[str]] = [[], ["model.title=Another name"], ["+model.mean=[0.5]", "+model.std=[0.5]"]]
    plain, renamed, normalized = (
        prepare(typed(compose_config("evaluate", [*named, *change]), EvaluateConfig)) for change in changes
    )
    assert plain.weights_sha256 == normalized.weights_sha256
    assert plain.key == renamed.key != normalized.key
    assert normalized.subject.settings["mean"] == [0.5]


def test_generated_images_are_named_without_their_folders(run: Path) -> None:
    files = ["/home/someone/data/cifar10/20m_part1.npz", "/home/someone/data/cifar10/20m_part2.npz"]
    configure(run, data__synthetic__files=files, data__synthetic__fraction=0.7)
    record, _ = evaluate(run)
    assert record.synthetic == "cifar10/20m_part1.npz, cifar10/20m_part2.npz, 70 % of every batch"
    assert not record.additional_data


def test_the_best_epoch_is_the_first_of_the_highest() -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "test_accuracy": 0.5},
        {"epoch": 2, "test_accuracy": 0.75, "average_test_accuracy": 0.25},
        {"epoch": 3, "test_accuracy": 0.25, "average_test_accuracy": 0.25},
        {"epoch": 4, "test_accuracy": 0.75, "average_test_accuracy": 0.5},
        {"epoch": 5, "test_accuracy": 0.625, "average_test_accuracy": 0.375},
    ]
    assert best_epoch(rows, averaged=False) == (0.75, 2)
    assert best_epoch(rows, averaged=True) == (0.5, 4)
    assert best_epoch(rows[:1], averaged=True) is best_epoch([], averaged=False) is None
    assert best_epoch([*rows, {"epoch": 6}], averaged=False) is None  # the untested epoch may have been the best
