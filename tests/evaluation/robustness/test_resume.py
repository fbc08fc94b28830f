"""A stopped evaluation continues with the next batch and ends with the flags of an uninterrupted one."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor

from dkl.attacks.autoattack.attack_loop import EvaluationState, load, save
from dkl.errors import UserError
from dkl.records import load_all
from tests.evaluation.common import Attack, attack, evaluate_run, run, some_digits, tiny_run, trained
from tests.interruptions.forks import fork

NAMES = ["pgd-3", "apgd-ce", "pgd-5"]


class PowerCutError(Exception):
    """Stands for anything that stops an evaluation."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> EvaluationState:
    """The uninterrupted evaluation."""
    return attack(NAMES, tmp_path_factory.mktemp("whole"))


def test_damaged_progress_is_refused_by_name(tmp_path: Path) -> None:
    attack(["pgd-3"], tmp_path)
    (path,) = tmp_path.glob("*.npz")
    written = bytearray(path.read_bytes())
    written[written.index(b"\n") + 1] ^= 1  # the first flag of the first array
    path.write_bytes(written)
    with pytest.raises(UserError, match=rf"{path.name} is damaged .*delete {tmp_path}"):
        load(tmp_path)


def test_progress_of_other_images_or_another_version_is_refused(tmp_path: Path) -> None:
    save(attack(["pgd-3"], tmp_path / "whole"), tmp_path / "0.npz")
    with pytest.raises(UserError, match=rf"0.npz is of 24 images, not 25: delete {tmp_path}"):
        load(tmp_path, 25)
    assert load(tmp_path, 24).keys() == {"clean", "pgd-3"}
    np.savez(tmp_path / "0.npz", **{"flags/clean": np.ones(24, np.bool_), "seconds/clean": np.zeros(3)})
    with pytest.raises(UserError, match=r"0.npz is of another version of dkl: delete"):
        load(tmp_path, 24)


@pytest.mark.parametrize("stop_at", range(6))
def test_stopped_at_any_batch(stop_at: int, whole: EvaluationState, tmp_path: Path) -> None:
    sizes: list[int] = []

    def evaluate(limit: int) -> EvaluationState:
        def stopping(perturb: Attack) -> Attack:
            def inner(x: Tensor, y: Tensor) -> Tensor:
                if len(sizes) == limit:
                    raise PowerCutError
                sizes.append(len(x))
                return perturb(x, y)

            return inner

        return attack(NAMES, tmp_path, wrap=stopping)

    with pytest.raises(PowerCutError):
        evaluate(stop_at)
    resumed = evaluate(10**6)
    assert list(resumed) == ["clean", *NAMES]
    for name in NAMES:
        assert np.array_equal(resumed[name].flags, whole[name].flags)
    attacked = [int(whole[name].flags.sum()) for name in ("clean", *NAMES[:-1])]
    assert sum(sizes) == sum(attacked), "a batch was attacked twice, or not at all"


def clean(folder: Path, forward_limit: int = 10**6) -> tuple[EvaluationState, int]:
    """Top-1 and top-5 of 24 digits in batches of 5, stopped after some batches; also the number of batches done."""
    images, labels = some_digits(24)
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        if done == forward_limit:
            raise PowerCutError
        done += 1

    hook = trained().register_forward_pre_hook(count)
    try:
        pixels = (images * 255).round().to(torch.uint8)
        return run(trained(), pixels, labels, {}, batch_size=5, folder=folder, top_five=True), done
    finally:
        hook.remove()


def test_clean_accuracy_is_resumed_too(tmp_path: Path) -> None:
    whole, batches = clean(tmp_path / "whole")
    with pytest.raises(UserError, match="PowerCutError"):  # raised inside the network
        clean(tmp_path / "stopped", 2)
    resumed, remaining = clean(tmp_path / "stopped")
    assert (batches, remaining) == (5, 3)
    assert list(whole) == list(resumed) == ["clean", "top5"]
    logits, labels = trained()(some_digits(24)[0]).detach(), some_digits(24)[1]
    for name, k in (("clean", 1), ("top5", 5)):
        assert np.array_equal(resumed[name].flags, whole[name].flags)
        expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(10))
        assert whole[name].flags.mean() == pytest.approx(expected)


def test_a_state_without_top5_is_completed(tmp_path: Path) -> None:
    """States of older versions have clean flags only."""
    whole, _ = clean(tmp_path / "whole")
    (tmp_path / "old").mkdir()
    save({"clean": whole["clean"]}, tmp_path / "old" / "0.npz")
    assert np.array_equal(clean(tmp_path / "old")[0]["top5"].flags, whole["top5"].flags)


def test_a_killed_process(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "trainer.epochs=2")
    arguments = ["attacks=[pgd-5,square]", "eps=0.1", "batch_size=20"]
    results = tmp_path / "killed"
    log = tmp_path / "log"
    victim = fork(lambda: evaluate_run(folder, results, *arguments), log)

    def pgd_is_done() -> bool:
        states = [load(path.parent) for path in results.glob("runs/evaluations/*/0.npz")]
        return any("pgd-5" in state and state["pgd-5"].done.all() for state in states)

    deadline = time.monotonic() + 120
    while not pgd_is_done():
        assert time.monotonic() < deadline
        assert os.waitpid(victim, os.WNOHANG) == (0, 0), log.read_text()
        time.sleep(0.02)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    assert not list(results.glob("records/*"))
    (record, flags), (_, whole) = (evaluate_run(folder, tmp_path / name, *arguments) for name in ("killed", "whole"))
    assert flags.keys() == whole.keys() == {"clean", "top5", "pgd-5", "square"}
    assert all(np.array_equal(flags[name], whole[name]) for name in flags)
    assert not list(results.glob("runs/evaluations/*/*")), "the state is removed after the record is written"
    assert record.robust == flags["square"].mean() > 0
    assert record.n == 40
    assert not record.is_autoattack
    assert record.training["trainer"]["epochs"] == 2
    assert load_all(results / "records")[1] == []
