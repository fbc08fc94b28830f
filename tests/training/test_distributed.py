"""Two processes compute the weights that one process computes from the same batches."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from dkl import checkpoint
from dkl.assembly import assemble, train
from dkl.config import run_folder
from dkl.distributed import spawn_processes
from dkl.errors import UserError
from dkl.training.fit import fit
from tests.training.common import TINY, finish, make_config, start

pytestmark = pytest.mark.slow

EXACT = ("trainer.precision=float64", "trainer.channels_last=false", "data.train_size=90", "trainer.device=cpu")
SELECTED = ("selection.holdout=9", "selection.every=1", "selection.attack=pgd-3")
BATCH_NORM = ("model=wrn10_2", "data.train_size=16", "trainer.batch_size=8")
CASES = {
    "TRADES": ("loss=kl",),
    "IKL": ("loss=ikl", "attack=official_ikl", "data.augment.crop_padding=1"),
    "IKL with AWP, average and selection": (
        *("loss=ikl", "task.awp.gamma=0.005", "task.awp.start=1", "averaging=ema", "attack.sigma=null", *SELECTED),
    ),
    "in parts": ("task=classification", "data.train_size=91"),
}
PARTS = {"in parts": ("trainer.accumulate=14",)}


def config(results: Path, *overrides: str) -> DictConfig:
    """Two epochs of three batches. The last batch does not divide evenly among two processes."""
    return make_config(results, *EXACT, *overrides, epochs=2)


def read(cfg: DictConfig) -> dict[str, Any]:
    return checkpoint.read(run_folder(cfg) / "checkpoint.pt")


def largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def train_all(configs: list[DictConfig]) -> None:
    for cfg in configs:
        fit(assemble(cfg))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Checkpoints of two processes, which are started once for all cases: starting them takes most of the time."""
    results = tmp_path_factory.mktemp("two")
    configs = {name: config(results, *case, *PARTS.get(name, ()), "trainer.devices=2") for name, case in CASES.items()}
    configs["BatchNorm"] = config(results, *BATCH_NORM, "trainer.devices=2")
    configs["BatchNorm again"] = config(results / "again", *BATCH_NORM, "trainer.devices=2")
    torch.set_num_threads(1)
    spawn_processes(train_all, (list(configs.values()),), processes=2, device="cpu")
    return {name: read(cfg) for name, cfg in configs.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, two: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    cfg = config(tmp_path, *CASES[name])
    train(cfg)
    one, other = read(cfg), two[name]
    assert largest(one["model"], other["model"]) < 1e-12
    if "prior" in one["task"]:
        assert largest(one["task"]["prior"], other["task"]["prior"]) < 1e-12
    if "average" in one:
        assert largest(one["average"], other["average"]) < 1e-12
    for here, there in zip(one["rows"], other["rows"], strict=True):
        for key in set(here) - {"images_per_second"}:
            assert here[key] == pytest.approx(there[key], abs=1e-10), key


def test_batch_norm_sees_one_share_and_the_first_statistics_are_kept(
    two: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    cfg = config(tmp_path, *BATCH_NORM)
    train(cfg)
    assert largest(read(cfg)["model"], two["BatchNorm"]["model"]) > 1e-4
    assert largest(two["BatchNorm"]["model"], two["BatchNorm again"]["model"]) == 0


def test_torchrun_trains_the_same_run(two: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    settings = [*TINY, *EXACT, "trainer.epochs=2", *CASES["TRADES"]]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dkl", "train"]
    printed = finish(start([*torchrun, *settings, f"paths.results={tmp_path}"], tmp_path))
    (folder,) = (tmp_path / "runs").iterdir()
    assert largest(two["TRADES"]["model"], checkpoint.read(folder / "checkpoint.pt")["model"]) == 0
    assert folder == run_folder(config(tmp_path, *CASES["TRADES"], "trainer.devices=2"))
    assert printed.count("done, loss") == 1  # only one process prints


def test_a_loss_that_is_not_finite_stops_all_processes_with_one_message(tmp_path: Path) -> None:
    cfg = make_config(tmp_path, "trainer.devices=2", "+model.mean=[0]", "+model.std=[1e-38]")
    with pytest.raises(UserError, match=r"the loss is .* in epoch 1, batch \d; .*nonfinite-epoch1-batch"):
        train(cfg)
    assert list(tmp_path.glob("runs/*/nonfinite-epoch1-batch*-rank*.pt"))


def test_a_batch_too_small_for_the_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkl.assembly.data.world", lambda: 2)
    with pytest.raises(UserError, match="cannot be shared"):
        assemble(make_config(tmp_path, "trainer.batch_size=95"))  # the last batch of 96 images has one image


def test_more_devices_than_there_are_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("dkl.assembly.checks.pick_device", lambda name: torch.device("cuda"))
    with pytest.raises(UserError, match=r"trainer\.devices=4, but there are 1 GPUs"):
        train(make_config(tmp_path, "trainer.devices=4"))


def test_torchrun_and_devices_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
    with pytest.raises(UserError, match="torchrun has started 3"):
        train(make_config(tmp_path, "trainer.devices=2"))


def test_sync_batch_norm_needs_gpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GPUs only"):
        train(make_config(tmp_path, "trainer.sync_batchnorm=true", "trainer.device=cpu"))
