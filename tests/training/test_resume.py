"""An interrupted run that is started again ends like one that was never interrupted, bit for bit."""

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dkl.assembly import train
from dkl.config import compose_config, run_folder
from dkl.data import Batch
from dkl.errors import UserError
from dkl.evaluation import evaluate
from dkl.storage import checkpoint
from dkl.tasks import Output, Progress, TradesTraining
from dkl.training import fit
from dkl.training.state import rng_state, seed_everything, set_rng_state
from tests.training.common import OWN_ATTACK, TINY, assert_equal, comparable, make_config, start


class Interrupted(BaseException):
    """Not an Exception, like KeyboardInterrupt."""


def draw() -> list[float]:
    """Draw from every global generator, also normal numbers: Python and NumPy draw those in pairs and keep one."""
    others = [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.standard_normal())]
    return [*others, torch.rand(()).item(), torch.randn(()).item()]


def test_a_checkpoint_restores_the_random_generators(tmp_path: Path) -> None:
    seed_everything(7)
    first = draw()  # leaves one normal number of a pair in Python's and NumPy's generators
    checkpoint.save(tmp_path / "rng.pt", {"rng": rng_state()})
    expected = [draw() for _ in range(700)]  # more than the 624 words of a Mersenne twister
    seed_everything(8)
    draw()
    set_rng_state(checkpoint.read(tmp_path / "rng.pt")["rng"])
    assert [draw() for _ in range(700)] == expected
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first


@pytest.mark.parametrize(
    "options",
    [
        ("loss=ikl", "attack=official_ikl"),
        ("loss=gkl", "model=wrn10_2", "data.train_size=24", "trainer.batch_size=8"),
        ("loss=kl", *OWN_ATTACK),
    ],
    ids=["IKL", "GKL with BatchNorm", "an attack of your own"],
)
def test_a_run_that_fails_within_an_epoch_continues_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    original, draws, fail_at = TradesTraining.step, [], {"place": (3, 1)}

    @contextmanager
    def step(self: TradesTraining, batch: Batch, progress: Progress) -> Iterator[Output]:
        with original(self, batch, progress) as out:
            if (progress.epoch, progress.step) == fail_at["place"]:
                raise Interrupted
            draws.append(((progress.epoch, progress.step), draw()))
            yield out

    monkeypatch.setattr(TradesTraining, "step", step)
    broken = make_config(tmp_path / "broken", *options, epochs=4)
    with pytest.raises(Interrupted):
        train(broken)
    assert checkpoint.read(run_folder(broken) / "checkpoint.pt")["epoch"] == 2
    fail_at["place"] = (0, 0)
    first, draws = list(draws), []
    resumed = train(broken)
    second, draws = list(draws), []
    whole = train(make_config(tmp_path / "whole", *options, epochs=4))
    assert_equal(comparable(resumed), comparable(whole))
    assert (resumed / "metrics.jsonl").read_text().count("\n") == 4
    in_epochs_done = [item for item in first if item[0][0] < 3]
    assert in_epochs_done + second == draws
    assert len(draws) == 12


def test_a_folder_that_is_deleted_during_training_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, original = make_config(tmp_path, epochs=1), TradesTraining.test

    def delete(self: TradesTraining, *arguments: Any) -> dict[str, float]:
        shutil.rmtree(run_folder(cfg))
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TradesTraining, "test", delete)
        with pytest.raises(UserError, match="was deleted or moved during training: give the same command again"):
            train(cfg)
    assert {path.name for path in train(cfg).iterdir()} >= {"config.yaml", "checkpoint.pt"}


def test_a_test_image_that_cannot_be_read_loses_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make_config(tmp_path / "broken", epochs=1)

    def fail(*args: object) -> None:
        raise UserError("1.png cannot be read as an image")

    with monkeypatch.context() as patch:
        patch.setattr(TradesTraining, "test", fail)
        with pytest.raises(UserError, match=r"1\.png"):
            train(cfg)
    with monkeypatch.context() as patch:
        patch.setattr(TradesTraining, "step", fail)
        folder = train(cfg)  # measures, and takes no step
    assert_equal(comparable(folder), comparable(train(make_config(tmp_path / "whole", epochs=1))))


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_run_that_stops_between_checkpoint_and_metrics_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    write, cfg = fit.write_metrics, make_config(tmp_path)

    def fail(rows: list[dict[str, float]], folder: Path) -> None:
        if len(rows) == epoch:
            raise Interrupted
        write(rows, folder)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "write_metrics", fail)
        with pytest.raises(Interrupted):
            train(cfg)
    folder = train(cfg)
    for name, lines in (("metrics.jsonl", 3), ("metrics.csv", 4)):
        assert (folder / name).read_text().count("\n") == lines


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("data.train_size=640", "trainer.batch_size=64", "loss=ikl")
    cfg = make_config(tmp_path / "killed", *options, epochs=8)
    folder = run_folder(cfg)
    overrides = [*TINY, *options, "trainer.epochs=8", "paths.results=killed"]
    process = start(["-m", "dkl", "train", *overrides], tmp_path)
    whole = train(make_config(tmp_path / "whole", *options, epochs=8))
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").read_text().count("\n") < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = checkpoint.read(folder / "checkpoint.pt")["epoch"]
    assert 2 <= done < 8
    capsys.readouterr()
    train(cfg)
    assert f"epochs {done + 1} to 8" in capsys.readouterr().err
    assert_equal(comparable(folder), comparable(whole))


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another setting": (lambda content: content["config"]["loss"].update(wmse_weight=3), "loss.wmse_weight=3, not 20"),
    "another seed": (lambda content: content["config"].update(seed=1), "seed=1, not 0"),
    "other images": (lambda content: content.update(data_sha256="0"), "other images"),
    "no optimizer": (lambda content: content.pop("optimizer"), "no 'optimizer'"),
    "no configuration": (lambda content: content.pop("config"), "no 'config'"),
    "a tensor less": (lambda content: content["model"].popitem(), "Error(s) in loading state_dict"),
    "random state": (lambda content: content["rng"].clear(), "no 'python'"),
    "metrics": (lambda content: content["rows"].pop(), "metrics of 0 epochs, but is of epoch 1"),
    "version": (lambda content: content.update(version=1), "not a checkpoint of this version"),
}


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(make_config(tmp_path_factory.mktemp("one"), "attack.steps=1", epochs=1))


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_run_or_without_a_part_is_refused(one_epoch: Path, tmp_path: Path, name: str) -> None:
    """By training, and, if its weights would be evaluated under another name, by evaluation."""
    change, words = CHANGES[name]
    folder = shutil.copytree(one_epoch, tmp_path / "runs" / one_epoch.name)
    content = checkpoint.read(folder / "checkpoint.pt")
    change(content)
    checkpoint.save(folder / "checkpoint.pt", content)
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        train(make_config(tmp_path, "attack.steps=1", epochs=1))
    assert "\n" not in str(refused.value)
    if name in ("another setting", "another seed"):
        with pytest.raises(UserError, match=re.escape(words)):
            evaluate(compose_config("evaluate", [f"run={folder}", "attacks=none", f"paths.results={tmp_path}"]))


def test_moved_data_and_another_label_are_no_other_run(one_epoch: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(one_epoch, tmp_path / "runs" / one_epoch.name)
    before = (folder / "checkpoint.pt").read_bytes()
    train(make_config(tmp_path, "attack.steps=1", "paths.data=elsewhere", "label=mine", epochs=1))
    assert (folder / "checkpoint.pt").read_bytes() == before
