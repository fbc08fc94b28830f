"""Which weights of a run are evaluated: a run whose last, average and best weights each always answer another class."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from dkl import checkpoint
from dkl.cli import main
from dkl.data import digits
from dkl.records import Record, load_all
from tests.evaluation.common import only_record, tiny_run


def always(state: dict[str, Tensor], label: int) -> dict[str, Tensor]:
    """Weights whose logits are highest for ``label``, whatever the image."""
    changed = {name: value.clone() for name, value in state.items()}
    weight, bias = list(changed)[-2:]
    changed[weight].zero_()
    changed[bias].copy_(torch.nn.functional.one_hot(torch.tensor(label), 10))
    return changed


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """The run with weights for class 0 (last), 1 (average) and 2 (best)."""
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    content = checkpoint.read(folder / "checkpoint.pt")
    state = content["model"]
    checkpoint.save(folder / "checkpoint.pt", {**content, "model": always(state, 0), "average": always(state, 1)})
    best = {"model": always(state, 2), "epoch": 3, "weights": "average", "accuracy": 0.5, "attack": "cw-20"}
    checkpoint.save(folder / "best.pt", best)
    return folder


def evaluate(run: Path, *overrides: str) -> tuple[Record, int]:
    """The record of an evaluation of ``run``, and the one class whose images it got right."""
    results = run.parent / f"results{len(list(run.parent.iterdir()))}"
    main(["evaluate", f"run={run}", f"paths.results={results}", "attacks=[pgd-1]", *overrides])
    record, flags = only_record(results)
    labels = digits()[1].balanced(40).labels
    (label,) = set(labels[torch.from_numpy(flags["clean"])].tolist())
    assert flags["clean"].sum() == (labels == label).sum()
    return record, label


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


def test_unasked_it_is_the_average_where_there_is_one_else_the_last(run: Path) -> None:
    assert evaluate(run)[1] == 1
    content = checkpoint.read(run / "checkpoint.pt")
    del content["average"]
    checkpoint.save(run / "checkpoint.pt", content)
    record, found = evaluate(run, "seed=1")
    assert (found, record.weights) == (0, "last epoch 4")


def configure(run: Path, **values: Any) -> None:
    """Change dotted keys of the run's configuration."""
    cfg = OmegaConf.load(run / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    OmegaConf.save(cfg, run / "config.yaml")


def test_the_runs_own_choice_comes_before_the_average(run: Path) -> None:
    configure(run, evaluation__weights="best")
    assert evaluate(run)[1] == 2
    assert evaluate(run, "weights=last")[1] == 0


def test_a_run_of_before_there_was_a_choice(run: Path) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    del cfg.evaluation.weights, cfg.data.synthetic
    OmegaConf.save(cfg, run / "config.yaml")
    record, found = evaluate(run)
    assert (found, record.synthetic) == (1, None)


def test_records_of_other_weights_lie_beside_each_other(run: Path) -> None:
    results = f"paths.results={run.parent / 'together'}"
    for name in ("last", "average", "best", "last"):
        main(["evaluate", f"run={run}", results, "attacks=[pgd-1]", f"weights={name}"])
    found = load_all(run.parent / "together" / "records")[0]
    assert len({record.checkpoint_sha256 for record in found}) == len(found) == 3


@pytest.mark.parametrize("asked", ["best", "average", "newest"])
def test_what_a_run_lacks_is_refused_with_what_it_has(
    asked: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={plain}", f"paths.results={tmp_path}", f"weights={asked}"])
    said = capsys.readouterr().err
    assert f"weights={asked}" in said
    assert "choose one of: last" in said


def test_foreign_weights_have_no_choice(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = [f"checkpoint={run / 'best.pt'}", "model=small_cnn", "data=digits", "data.test_size=40"]
    with pytest.raises(SystemExit):
        main(["evaluate", *file, f"paths.results={tmp_path / 'no'}", "weights=best"])
    assert "weights=best" in capsys.readouterr().err
    main(["evaluate", *file, f"paths.results={tmp_path / 'yes'}", "attacks=[pgd-1]"])
    assert only_record(tmp_path / "yes")[0].weights == "as in the file"


def test_generated_images_are_named_without_their_folders(run: Path) -> None:
    files = ["/home/someone/data/cifar10/20m_part1.npz", "/home/someone/data/cifar10/20m_part2.npz"]
    configure(run, data__synthetic__files=files, data__synthetic__fraction=0.7)
    record, _ = evaluate(run)
    assert record.synthetic == "cifar10/20m_part1.npz, cifar10/20m_part2.npz, 70 % of every batch"
    assert not record.additional_data
