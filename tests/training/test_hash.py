"""The hash that names a run covers exactly what changes its weights."""

from pathlib import Path

import numpy as np
import pytest

from dkl.assembly import load_data, train
from dkl.config import EvaluateConfig, compose_config, hashed, row_identity, run_folder, typed
from dkl.config.identity import config_hash
from dkl.evaluation.subject import run_subject
from tests.training.common import OWN_ATTACK

SAME = [
    ["paths.data=/elsewhere"],
    ["paths.results=/elsewhere"],
    ["data=cifar10", "paths.data=/elsewhere"],
    ["logger=wandb"],
    ["logger=wandb", "logger.mode=offline", "logger.project=other"],
    ["evaluation.attacks=fast", "evaluation.n=10", "evaluation.batch_size=7", "evaluation.seed=3"],
    ["label=Another name"],
    ["trainer.device=cpu"],
    ["trainer.threads=2"],
    ["trainer.workers=4"],
    ["evaluation.weights=last"],
    ["loss=ikl", "recipe=quick", "seed=0"],
    ["loss.wmse_weight=20"],  # written 20.0 in the file
    ["loss.wmse_weight=2e1", "optimizer.weight_decay=0.0005"],
]

OTHER = [
    ["seed=1"],
    ["loss=kl"],
    ["loss.wmse_weight=19.9"],
    ["loss.weighting=sample"],
    ["attack.steps=11"],
    ["attack.eps=9/255"],
    ["attack=official_ikl"],
    [*OWN_ATTACK],
    [*OWN_ATTACK, "attack.share=0.4"],
    ["task.prior_temperature=1"],
    ["task.awp.gamma=0.005"],
    ["averaging=epoch_ema"],
    ["trainer.devices=2"],
    ["selection.holdout=8", "selection.every=1"],
    ["selection.holdout=8", "selection.every=1", "selection.eps=0.2"],
    ["model=wrn10_2"],
    ["optimizer.lr=0.051"],
    ["optimizer.weight_decay=0"],
    ["schedule.warmup_epochs=1"],
    ["schedule=constant"],
    ["trainer.epochs=31"],
    ["trainer.batch_size=64"],
    ["trainer.precision=float64"],
    ["data.train_size=100"],
    ["data.test_size=100"],
    ["data.augment.flip=true"],
    ["data=cifar10"],
    ["budget=smoke"],
]


@pytest.mark.parametrize("overrides", SAME, ids=" ".join)
def test_what_does_not_change_the_weights_does_not_change_the_hash(overrides: list[str]) -> None:
    base = compose_config("train", [text for text in overrides if text.startswith("data=")])
    cfg = compose_config("train", overrides)
    assert config_hash(cfg) == config_hash(base)
    assert row_identity(hashed(cfg)) == row_identity(hashed(base))
    assert run_folder(cfg).name == run_folder(base).name


@pytest.fixture(scope="module")
def others() -> dict[str, tuple[str, str, str]]:
    """Hash, hash of the row and folder of the defaults (named by an empty text) and of each of OTHER."""
    configs = {" ".join(overrides): compose_config("train", overrides) for overrides in [[], *OTHER]}
    return {name: (config_hash(cfg), row_identity(hashed(cfg)), run_folder(cfg).name) for name, cfg in configs.items()}


def test_what_changes_the_weights_changes_the_hash(others: dict[str, tuple[str, str, str]]) -> None:
    assert len({run for run, _, _ in others.values()}) == len(OTHER) + 1
    assert len({folder for _, _, folder in others.values()}) == len(OTHER) + 1


def test_a_row_ignores_the_seed_and_how_it_was_computed(others: dict[str, tuple[str, str, str]]) -> None:
    rows = {name: row for name, (_, row, _) in others.items()}
    same = {"seed=1", "trainer.devices=2", "trainer.precision=float64"}
    assert {name for name, row in rows.items() if row == rows[""]} == {"", *same}
    assert len(set(rows.values())) == len(OTHER) + 1 - len(same)
    assert row_identity(hashed(compose_config("train", ["loss=kl", "seed=5"]))) == rows["loss=kl"]


@pytest.mark.parametrize("name", ["npz", "cifar10"])
def test_evaluation_computes_the_hashes_of_training_after_the_data_moved(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    folder = data if name == "npz" else data / name
    folder.mkdir(parents=True)
    for split, count in (("train", 24), ("test", 8)):
        images = np.random.default_rng(count).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", image=images, label=np.arange(count) % 10)
    common = [f"data={name}", "data.num_classes=10", f"paths.results={tmp_path}", "trainer.epochs=1"]
    overrides = [*common, f"paths.data={data}"]
    cfg = compose_config("train", [*overrides, "seed=1"])
    run = train(cfg)
    data = data.rename(tmp_path / "moved")
    asked = typed(compose_config("evaluate", [f"run={run}", f"paths.data={data}"]), EvaluateConfig)
    subject = run_subject(asked)
    assert subject.run is not None
    assert subject.run.config_hash == config_hash(cfg) == run.name.rpartition("-")[2]
    assert row_identity(subject.run.settings) == row_identity(hashed(compose_config("train", overrides)))
    assert len(load_data(subject.data)[1]) == 8


def test_the_folder_names_what_it_holds(tmp_path: Path) -> None:
    cfg = compose_config("train", ["loss=gkl", "seed=4", f"paths.results={tmp_path}"])
    assert run_folder(cfg) == tmp_path / "runs" / f"digits-small_cnn-gkl-s4-{config_hash(cfg)}"
    assert len(config_hash(cfg)) == 8
    assert "-ce-" in run_folder(compose_config("train", ["task=classification"])).name
