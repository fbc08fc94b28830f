"""Two processes give the weights that one gives with the same global batch: attack, AWP, prior, averages and all."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dkl import checkpoint
from dkl.assembly import train
from dkl.errors import UserError
from tests.training.common import TINY, finish, make_config, start

SELECTED = ("selection.holdout=9", "selection.every=1", "selection.attack=pgd-3")
EXACT = ("trainer.precision=float64", "trainer.channels_last=false", "data.train_size=90", "trainer.device=cpu")


def run(results: Path, *overrides: str) -> dict[str, Any]:
    """A checkpoint of two epochs of three batches, the last of which two processes share unevenly."""
    return checkpoint.read(train(make_config(results, *EXACT, *overrides, epochs=2)) / "checkpoint.pt")


def largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss=kl",),
        ("loss=ikl", "attack=official_ikl", "data.augment.crop_padding=1"),
        ("loss=ikl", "task.awp.gamma=0.005", "task.awp.start=1", "averaging=ema", "attack.sigma=null", *SELECTED),
    ],
    ids=["TRADES", "IKL", "IKL with AWP, average and selection"],
)
def test_two_processes_equal_one(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    one = run(tmp_path, *overrides)
    two = run(tmp_path, *overrides, "trainer.devices=2")
    assert largest(one["model"], two["model"]) < 1e-12
    assert largest(one["task"]["prior"], two["task"]["prior"]) < 1e-12
    if "average" in one:
        assert largest(one["average"], two["average"]) < 1e-12
    for here, there in zip(one["rows"], two["rows"], strict=True):
        for name in set(here) - {"images_per_second"}:
            assert here[name] == pytest.approx(there[name], abs=1e-10), name
    other = run(tmp_path, *overrides, "seed=1")
    assert largest(one["model"], other["model"]) > 1e-3


def test_batch_norm_sees_a_processes_share_and_the_firsts_statistics_survive(tmp_path: Path) -> None:
    overrides = ("model=wrn10_2", "data.train_size=16", "trainer.batch_size=8")
    one, two = run(tmp_path, *overrides), run(tmp_path, *overrides, "trainer.devices=2")
    assert largest(one["model"], two["model"]) > 1e-4
    again = run(tmp_path / "again", *overrides, "trainer.devices=2")
    assert largest(two["model"], again["model"]) == 0


def test_torchrun_is_the_same_run(tmp_path: Path) -> None:
    settings = [*TINY, *EXACT, "trainer.epochs=2", "loss=kl"]
    here = run(tmp_path / "here", "loss=kl", "trainer.devices=2")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dkl", "train"]
    said = finish(start([*launch, *settings, f"paths.results={tmp_path / 'there'}"], tmp_path))
    (folder,) = (tmp_path / "there" / "runs").iterdir()
    assert largest(here["model"], checkpoint.read(folder / "checkpoint.pt")["model"]) == 0
    assert folder.name in {path.name for path in (tmp_path / "here" / "runs").iterdir()}
    assert said.count("done, loss") == 1  # one process speaks


def test_a_mistake_in_a_process_is_one_message(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, "trainer.devices=2", "trainer.batch_size=95")  # the last batch of 96 is one image
    with pytest.raises(UserError, match="cannot be shared"):
        train(cfg)


def test_devices_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("dkl.assembly.checks.pick_device", lambda name: torch.device("cuda"))
    with pytest.raises(UserError, match=r"trainer\.devices=4, but there are 1 GPUs"):
        train(make_config(tmp_path, "trainer.devices=4"))


def test_a_loss_that_is_not_finite_stops_all_processes_and_leaves_its_file(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, "trainer.devices=2", "optimizer.lr=1e30")
    with pytest.raises(UserError, match=r"the loss is .* in epoch 1, batch \d; .*nonfinite-epoch1-batch"):
        train(cfg)
    assert list(tmp_path.glob("runs/*/nonfinite-epoch1-batch*-rank*.pt"))


def test_torchrun_and_devices_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
    with pytest.raises(UserError, match="torchrun has started 3"):
        train(make_config(tmp_path, "trainer.devices=2"))


def test_sync_batch_norm_needs_gpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GPUs only"):
        train(make_config(tmp_path, "trainer.sync_batchnorm=true", "trainer.device=cpu"))
