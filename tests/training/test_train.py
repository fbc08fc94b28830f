"""A training run writes its files, learns, is not repeated, and stops with an error that says how to fix it."""

import csv
import dataclasses
import fcntl
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import cross_entropy

from dkl.assembly import assemble, build_model, load_data, train
from dkl.config import compose_config, load_config, run_folder
from dkl.errors import UserError
from dkl.loggers import Logger, LoggerRun
from dkl.losses import IKL
from dkl.storage import checkpoint
from dkl.training.fit import fit
from dkl.training.schedules import Constant
from tests.training.common import assert_equal, make_config


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that learns."""
    overrides = ("data.train_size=800", "data.test_size=200", "optimizer.lr=0.1", "loss.wmse_weight=2")
    return train(make_config(tmp_path_factory.mktemp("learned"), *overrides, epochs=5))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_files_and_nothing_else(learned: Path) -> None:
    expected = [".lock", "checkpoint.pt", "config.yaml", "metrics.csv", "metrics.jsonl"]
    assert sorted(path.name for path in learned.iterdir()) == expected


def test_the_two_files_of_metrics_agree(learned: Path) -> None:
    rows = read_rows(learned)
    with (learned / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in line.items()} for line in table] == rows
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows == checkpoint.read(learned / "checkpoint.pt")["rows"]


def test_it_learns(learned: Path) -> None:
    rows = read_rows(learned)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["test_accuracy"] > 0.6
    for row in rows:
        assert 0 <= row["adversarial_accuracy"] <= row["natural_accuracy"] <= 1
        assert row["images_per_second"] > 0


def test_the_weights_in_the_checkpoint_have_the_accuracy_of_the_last_row(learned: Path) -> None:
    cfg = OmegaConf.load(learned / "config.yaml")
    model, (_, test) = build_model(cfg.model), load_data(cfg.data)
    model.load_state_dict(checkpoint.read(learned / "checkpoint.pt")["model"])
    right = sum(
        int(model(image[None] / 255).argmax()) == label
        for image, label in zip(test.images, test.labels.tolist(), strict=True)
    )
    assert read_rows(learned)[-1]["test_accuracy"] == pytest.approx(right / 200, abs=1e-6)


def test_learning_rates_are_the_schedules(learned: Path) -> None:
    expected = [0.1 * math.cos(math.pi * epoch / 12) ** 2 for epoch in range(1, 6)]
    assert [row["lr"] for row in read_rows(learned)] == pytest.approx(expected)
    last = checkpoint.read(learned / "checkpoint.pt")["optimizer"]["param_groups"][0]["lr"]
    assert last == pytest.approx(expected[-1])


def test_the_saved_configuration_is_the_resolved_one(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, epochs=1)
    folder = train(cfg)
    saved = OmegaConf.load(folder / "config.yaml")
    resolved = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert OmegaConf.to_container(saved, resolve=True) == resolved
    assert checkpoint.read(folder / "checkpoint.pt")["config"] == resolved
    assert folder == run_folder(saved)


def test_calling_again_trains_nothing_and_keeps_a_new_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = make_config(tmp_path, epochs=1)
    folder = train(cfg)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = (folder / "checkpoint.pt").stat().st_mtime_ns
    capsys.readouterr()
    assert train(cfg) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == written
    assert "already trained" in capsys.readouterr().err
    assert train(make_config(tmp_path, "label=Mine", "evaluation.eps=0.2", epochs=1)) == folder
    kept = load_config(folder)
    assert (kept.label, kept.evaluation.eps) == ("Mine", "0.2")
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == written
    assert "already trained, 1 epochs; label Mine, evaluation and logger" in capsys.readouterr().err


def test_a_run_belongs_to_the_contents_of_its_first_weights(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 2)):  # two files of one name, as checkpoints of two runs
        files.append(train(make_config(tmp_path / name, f"seed={seed}", epochs=1)) / "checkpoint.pt")
    first = train(make_config(tmp_path, f"trainer.initial_weights={files[0]}", epochs=1))
    begun = (first / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=r"another file of trainer.initial_weights: move the folder away"):
        train(make_config(tmp_path, f"trainer.initial_weights={files[1]}", epochs=1))
    assert (first / "config.yaml").read_bytes() == begun
    moved = files[0].rename(tmp_path / files[0].name)
    assert train(make_config(tmp_path, f"trainer.initial_weights={moved}", epochs=1)) == first


@pytest.mark.parametrize(("every", "epochs"), [(0, [3]), (2, [2, 3])])
def test_validation_runs_at_its_interval_and_at_the_end(tmp_path: Path, every: int, epochs: list[int]) -> None:
    rows = read_rows(train(make_config(tmp_path, f"trainer.validate_every={every}")))
    assert [row["epoch"] for row in rows if "test_accuracy" in row] == epochs
    with next(tmp_path.glob("runs/*/metrics.csv")).open(newline="") as file:
        assert [int(line["epoch"]) for line in csv.DictReader(file) if line["test_accuracy"]] == epochs


def test_equal_seeds_give_equal_weights_and_other_seeds_others(tmp_path: Path) -> None:
    states = [
        checkpoint.read(train(make_config(tmp_path / name, f"seed={seed}", epochs=1)) / "checkpoint.pt")["model"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert_equal(states[1], states[0])
    assert not any(torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_another_process_on_the_same_run_is_refused(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, epochs=1)
    folder = run_folder(cfg)
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training") as caught:
            train(cfg)
        assert str(folder) in str(caught.value)
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert train(cfg) == folder  # the lock of a process that has ended does not count


class Refuses(Logger):
    """A logger without a login."""

    def start(self, about: LoggerRun) -> None:
        raise UserError("log in first")


def test_what_refuses_to_start_does_so_before_the_epochs_are_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = assemble(make_config(tmp_path))
    with pytest.raises(UserError, match="log in first"):
        fit(dataclasses.replace(run, logger=Refuses()))
    assert not capsys.readouterr().err


def assert_it_repeats(cfg: DictConfig, content: dict[str, Any]) -> None:
    """Weights and images in the file give a loss that is not finite."""
    model = build_model(cfg.model)
    model.load_state_dict(content["model"])
    natural, adversarial = model(content["images"]), model(content["adversarial_images"])
    weights = content["task"]["prior"]["table"][content["labels"]]
    loss = cross_entropy(natural, content["labels"]) + IKL()(natural, adversarial, weights=weights)
    assert not math.isfinite(loss.item())
    assert not math.isfinite(content["loss"])
    assert (content["epoch"], content["batch"]) == (3, 1)
    assert content["config"]["loss"]["_target_"] == "dkl.losses.IKL"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = train(make_config(tmp_path / "good", "schedule=constant", epochs=4))

    def explode(self: Constant, epoch: int, epochs: int) -> float:
        return 1.0 if epoch < 3 else 1e30

    monkeypatch.setattr(Constant, "lr_factor", explode)
    cfg = make_config(tmp_path / "bad", "schedule=constant", epochs=4)
    with pytest.raises(UserError, match=r"epoch 3, batch 1;.*optimizer\.lr"):
        train(cfg)
    (path,) = run_folder(cfg).glob("nonfinite-epoch3-batch1-*.pt")
    assert_it_repeats(cfg, checkpoint.read(path))
    kept = checkpoint.read(run_folder(cfg) / "checkpoint.pt")
    assert kept["epoch"] == 2
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert [row["epoch"] for row in read_rows(run_folder(cfg))] == [1, 2]
    monkeypatch.undo()
    assert_equal(
        checkpoint.read(train(cfg) / "checkpoint.pt")["model"], checkpoint.read(good / "checkpoint.pt")["model"]
    )


def test_an_ascent_that_is_not_finite_leaves_the_weights_alone(tmp_path: Path) -> None:
    huge = ["+model.mean=[0]", "+model.std=[1e-38]"]  # 1 / 1e-38 times any weight is infinite
    cfg = make_config(tmp_path, *huge, "task.awp.gamma=0.005", "task.awp.start=1", epochs=1)
    with pytest.raises(
        UserError, match=r"epoch 1, batch \d; the likely cause is model\.std=\[1e-38\] \(usually from 0\.01 to 1\)"
    ):
        train(cfg)
    (path,) = run_folder(cfg).glob("nonfinite-*.pt")
    content = checkpoint.read(path)
    assert all(value.isfinite().all() for value in content["model"].values())
    assert content["adversarial_images"].shape == content["images"].shape


@pytest.mark.parametrize("content", [{"state_dict": {"w": torch.zeros(2)}}, [1, 2], {"version": 0, "model": {}}])
def test_a_foreign_checkpoint_in_the_runs_folder_is_refused_and_kept(tmp_path: Path, content: Any) -> None:
    cfg = make_config(tmp_path)
    path = run_folder(cfg) / "checkpoint.pt"
    checkpoint.save(path, content)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"checkpoint\.pt.*move"):
        train(cfg)
    assert path.read_bytes() == before


def test_a_broken_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    cfg = make_config(tmp_path)
    path = run_folder(cfg) / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 half of a file")
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        train(cfg)
    assert path.read_bytes() == b"PK\x03\x04 half of a file"


def test_a_configuration_that_cannot_run_leaves_no_folder(tmp_path: Path) -> None:
    for override in ("trainer.batch_size=0", "trainer.device=cuda:99", "attack.eps=8", "loss.wmse_weight=-1"):
        with pytest.raises(UserError):
            train(make_config(tmp_path / "results", override))
    assert list(tmp_path.iterdir()) == []


def final(folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    return checkpoint.read(folder / "checkpoint.pt")["model"], read_rows(folder)[-1]["loss"]


def test_channels_last_changes_only_rounding(tmp_path: Path) -> None:
    options = ("trainer.precision=float64", "trainer.compile=false")
    first, second = (
        final(train(make_config(tmp_path, *options, f"trainer.channels_last={choice}", epochs=2)))
        for choice in ("true", "false")
    )
    for name, value in first[0].items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, second[0][name], rtol=1e-6, atol=1e-9)


def test_bf16_and_float64_come_near_float32(tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "float64", "bf16"):
        state, losses[precision] = final(train(make_config(tmp_path, f"trainer.precision={precision}", epochs=2)))
        dtype = torch.float64 if precision == "float64" else torch.float32
        assert {value.dtype for value in state.values()} == {dtype}
    assert losses["float64"] == pytest.approx(losses["float32"], rel=1e-3)
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.1)
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize(("loss", "attack"), [("kl", "official_ikl"), ("dkl", "pgd"), ("gkl", "official_kl")])
def test_losses_train_with_attacks_on_other_losses(tmp_path: Path, loss: str, attack: str) -> None:
    overrides = ["data.train_size=32", "data.test_size=10", "trainer.batch_size=16", "trainer.epochs=1"]
    folder = train(
        compose_config("train", [*overrides, f"loss={loss}", f"attack={attack}", f"paths.results={tmp_path}"])
    )
    assert torch.isfinite(torch.tensor(final(folder)[1]))


def test_classification_trains(tmp_path: Path) -> None:
    overrides = ["task=classification", "data.train_size=800", "data.test_size=200", "trainer.epochs=10"]
    (row,) = read_rows(train(compose_config("train", [*overrides, f"paths.results={tmp_path}"])))[-1:]
    assert row["test_accuracy"] > 0.6
    assert "adversarial_accuracy" not in row
