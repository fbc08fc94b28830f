"""Two processes compute the weights that one process computes from the same batches."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from dkl.assembly import assemble, train
from dkl.config import check, compose_config, run_folder
from dkl.errors import UserError
from dkl.runtime.device import check_processes
from dkl.runtime.distributed import _in_one, _killed, rank, spawn_processes, sum_over_ranks
from dkl.runtime.interruption import Flag, Interrupted
from dkl.storage import checkpoint
from dkl.training import fit as fitting
from dkl.training.fit import Run, fit, merged
from dkl.training.loop import EpochSums
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
    """The checkpoint, and with ``fingerprints`` the different states that the processes ended with."""
    folder = run_folder(cfg)
    fingerprints = {path.read_text() for path in folder.glob("fingerprint-*")}
    return checkpoint.read(folder / "checkpoint.pt") | {"fingerprints": fingerprints}


def largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def train_until(done: int, cfg: DictConfig) -> None:
    """Train ``cfg`` until ``done`` steps of the run, within an epoch, and save there, as on SIGTERM."""
    after_step = fitting._after_step

    def interrupt(run: Run, flag: Flag, epoch: int, so_far: EpochSums) -> None:
        if (epoch - 1) * len(run.batches) + so_far.step == done:
            signal.raise_signal(signal.SIGTERM)
        after_step(run, flag, epoch, so_far)

    with pytest.MonkeyPatch.context() as patch, suppress(Interrupted):
        patch.setattr(fitting, "_after_step", interrupt)
        fit(assemble(cfg))


def train_all(configs: list[DictConfig], interrupted: DictConfig) -> None:
    for cfg in configs:
        run = assemble(cfg)
        fit(run)
        (run.folder / f"fingerprint-{rank()}").write_text(run.state.fingerprint())
    train_until(3, interrupted)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Checkpoints of two processes, which are started once for all cases: starting them takes most of the time."""
    results = tmp_path_factory.mktemp("two")
    configs = {name: config(results, *case, *PARTS.get(name, ()), "trainer.devices=2") for name, case in CASES.items()}
    configs["BatchNorm"] = config(results, *BATCH_NORM, "trainer.devices=2")
    configs["BatchNorm again"] = config(results / "again", *BATCH_NORM, "trainer.devices=2")
    configs["BatchNorm, averaged"] = config(results, *BATCH_NORM, "averaging=ema", "trainer.devices=2")
    interrupted = (*BATCH_NORM, "trainer.batch_norm_share=2")
    torch.set_num_threads(1)
    train_until(1, config(results / "changing", *interrupted))
    interrupted_by_two = config(results / "changing", *interrupted, "trainer.devices=2")
    spawn_processes(train_all, (list(configs.values()), interrupted_by_two), processes=2, device="cpu")
    fit(assemble(config(results / "changing", *interrupted)))
    configs["one, two, one"] = interrupted_by_two
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
        for key in set(here) - {"epoch_seconds", "images_per_second"}:
            assert here[key] == pytest.approx(there[key], abs=1e-10), key


def test_batch_norm_sees_one_share_and_the_first_statistics_are_kept(
    two: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    cfg = config(tmp_path, *BATCH_NORM)
    train(cfg)
    assert largest(read(cfg)["model"], two["BatchNorm"]["model"]) > 1e-4
    assert largest(two["BatchNorm"]["model"], two["BatchNorm again"]["model"]) == 0


@pytest.mark.parametrize("name", ["TRADES", "BatchNorm", "BatchNorm, averaged"])
def test_all_processes_measure_the_weights_and_statistics_that_are_saved(
    name: str, two: dict[str, dict[str, Any]]
) -> None:
    assert len(two[name]["fingerprints"]) == 1


def test_each_process_draws_its_own_numbers_and_keeps_its_generators(two: dict[str, dict[str, Any]]) -> None:
    (other,) = two["TRADES"]["rng_of_others"]
    assert not torch.equal(other["torch"], two["TRADES"]["rng"]["torch"])  # masks of DropPath
    assert two["TRADES"]["devices"] == [2]


def test_one_device_shows_batch_norm_the_parts_that_two_devices_would(
    two: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    cfg = config(tmp_path, *BATCH_NORM, "trainer.batch_norm_share=2")
    assert run_folder(cfg).name == run_folder(config(tmp_path, *BATCH_NORM, "trainer.devices=2")).name
    train(cfg)
    assert largest(read(cfg)["model"], two["BatchNorm"]["model"]) < 1e-12


def test_batch_norm_of_a_network_trained_along_sees_the_same_parts(tmp_path: Path) -> None:
    lbgat = (*BATCH_NORM, "recipe=lbgat", "task.guide.name=wrn10_2")
    configs = (config(tmp_path, *lbgat, f"trainer.batch_norm_share={parts}") for parts in (1, 2))
    plain, split = (assemble(cfg).state.task.guide for cfg in configs)
    images = torch.rand(8, 1, 8, 8, dtype=torch.float64)
    for count in (8, 1):  # of one image there are no two parts
        expected = torch.cat([plain(part) for part in images[:count].chunk(2)])
        torch.testing.assert_close(split(images[:count]), expected, rtol=0, atol=1e-12)


def test_a_run_continues_within_an_epoch_on_another_number_of_devices(two: dict[str, dict[str, Any]]) -> None:
    """One step on one device, two on two, one on one: four steps in all, and two epochs."""
    found, expected = two["one, two, one"], two["BatchNorm"]
    assert found["devices"] == [1, 2]
    assert largest(found["model"], expected["model"]) < 1e-12
    for here, there in zip(found["rows"], expected["rows"], strict=True):
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-10)
        assert here["images_per_second"] * here["epoch_seconds"] == pytest.approx(16)  # each image once


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.batch_norm_share=3", "trainer.devices=2"), r"must be a multiple of trainer\.devices=2"),
        (("trainer.batch_norm_share=3",), r"a multiple of 3 as trainer\.batch_size"),
        (("trainer.batch_norm_share=2", "trainer.accumulate=2"), r"needs trainer\.accumulate=1"),
        (("trainer.batch_norm_share=2", "trainer.devices=2", "data.augment.second_view=cutout"), "both views together"),
        (("recipe=official", "trainer.devices=8"), r"fewer devices, or trainer\.batch_norm_share=8"),
        (("trainer.batch_norm_share=2", "data.labels_per_class=4"), "unlabeled"),
        (("trainer.compile=fast",), "must be false, true or reduce-overhead"),
    ],
    ids=str,
)
def test_parts_of_batch_norm_that_cannot_be_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(compose_config("train", ["trainer.batch_size=32", *overrides]))


def test_an_epoch_of_two_processes_is_continued_by_three() -> None:
    sums = [{"loss": torch.tensor(1.0)}, {"loss": torch.tensor(2.0), "seldom": torch.tensor(5.0)}]
    parts = [EpochSums(3, 8 * n, 4 * n, 1.5, found, {}).state_dict() for n, found in enumerate(sums, 1)]
    first, other = (EpochSums.from_state(merged(parts, first=first), torch.device("cpu")) for first in (True, False))
    assert (first.step, first.seen, first.images, first.sums["loss"].item()) == (3, 24, 12, 3.0)
    assert [each.sums["seldom"].item() for each in (first, other)] == [5.0, 0.0]
    assert (other.step, other.seen, other.images, other.sums["loss"].item()) == (3, 0, 0, 0.0)


def test_tensors_with_channels_last_are_exchanged_in_the_order_of_their_memory() -> None:
    plain, last = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    before, seen = [plain.clone(), last.clone()], []
    _in_one(
        [plain, last, plain.contiguous().clone()],
        lambda flat: seen.append(flat.clone()) or flat.mul_(2),
        [plain, last, last],
    )
    assert torch.equal(plain, 2 * before[0])
    assert torch.equal(last, 2 * before[1])
    assert torch.equal(seen[0][120:240], before[1].permute(0, 2, 3, 1).reshape(-1))
    assert torch.equal(seen[0][240:], before[0].permute(0, 2, 3, 1).reshape(-1))  # in the order of ``like``


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


def sum_after_one_is_killed(killed: int) -> None:
    """Sum over all processes, of which ``killed`` is killed before."""
    if rank() == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    sum_over_ranks([torch.ones(1)])


def test_a_killed_process_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^process 1 was ended by SIGKILL.* continues from the last checkpoint$"):
        spawn_processes(sum_after_one_is_killed, (1,), processes=2, device="cpu")


@pytest.mark.parametrize(("age", "named"), [(0, True), (60, False)])
def test_a_process_stopped_after_a_fault_is_not_its_cause(age: float, named: bool) -> None:
    fault = Path(f"{time.time_ns() - int(age * 1e9)}.fault")
    assert (_killed([-signal.SIGKILL, 2], 1, fault) is not None) == named


def test_a_batch_too_small_for_the_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkl.assembly.data.world", lambda: 2)
    with pytest.raises(UserError, match="cannot be shared"):
        assemble(make_config(tmp_path, "trainer.batch_size=95"))  # the last batch of 96 images has one image


def test_more_devices_than_there_are_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkl.runtime.device.count", lambda kind: 1)
    monkeypatch.setattr("dkl.assembly.checks.pick_device", lambda name: torch.device("cuda"))
    with pytest.raises(UserError, match=r"trainer\.devices=4 exceeds the 1 GPUs"):
        train(make_config(tmp_path, "trainer.devices=4"))


def test_more_processes_than_cores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkl.runtime.device.cores", lambda: 2)
    with pytest.raises(
        UserError, match=r"trainer\.devices=9 is too much for the 2 cores of this machine: use at most 8"
    ):
        train(make_config(tmp_path, "trainer.devices=9"))
    monkeypatch.setattr("dkl.runtime.device.cores", lambda: 16)
    check_processes(9, torch.device("cpu"))


def test_torchrun_and_devices_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
    with pytest.raises(UserError, match="torchrun has started 3"):
        train(make_config(tmp_path, "trainer.devices=2"))


def test_sync_batch_norm_needs_gpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GPUs only"):
        train(make_config(tmp_path, "trainer.sync_batchnorm=true", "trainer.device=cpu"))
