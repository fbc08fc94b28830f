"""An evaluation stopped anywhere goes on at the next batch and ends with the flags of one never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from dkl.assembly import train
from dkl.config import compose_config
from dkl.evaluation.robustness.attack_loop import run_attacks
from dkl.evaluation.robustness.progress import State, load
from dkl.evaluation.robustness.suites import make_attacks
from dkl.records import load_all, load_flags
from tests.evaluation.common import CPU, attack, some_digits, trained

NAMES = ["pgd-3", "apgd-ce", "pgd-40"]


class PowerCutError(Exception):
    """Stands for whatever stops an evaluation."""


@pytest.mark.parametrize("stop_at", range(6))
def test_stopped_at_any_batch(stop_at: int, tmp_path: Path) -> None:
    whole = attack(trained(), NAMES, tmp_path / "whole")
    images, labels = some_digits(24)
    calls: list[int] = []

    def counted(perturb: Callable[[Tensor, Tensor], Tensor], limit: int) -> Callable[[Tensor, Tensor], Tensor]:
        def inner(x: Tensor, y: Tensor) -> Tensor:
            if len(calls) == limit:
                raise PowerCutError
            calls.append(len(x))
            return perturb(x, y)

        return inner

    def run(limit: int) -> State:
        attacks = make_attacks(NAMES, trained(), norm="linf", eps=0.06, seed=3, device=CPU)
        wrapped = {name: counted(perturb, limit) for name, perturb in attacks.items()}
        return run_attacks(trained(), images, labels, wrapped, batch_size=10, device=CPU, folder=tmp_path / "stopped")

    with pytest.raises(PowerCutError):
        run(stop_at)
    resumed = run(10**6)
    assert list(resumed) == ["clean", *NAMES]
    for name in NAMES:
        assert np.array_equal(resumed[name].flags, whole[name].flags)
    standing = [int(whole[name].flags.sum()) for name in ("clean", *NAMES[:-1])]
    assert sum(calls) == sum(standing), "a batch was attacked twice, or not at all"


def run_cli(results: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dkl", "evaluate", f"paths.results={results}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, text=True, env=environment, stderr=subprocess.PIPE)


def test_killed_process(tmp_path: Path) -> None:
    sizes = ["data.train_size=300", "trainer.epochs=2", "trainer.threads=1", "data.test_size=60"]
    folder = train(compose_config("train", [f"paths.results={tmp_path}", *sizes]))
    arguments = [f"run={folder}", "attacks=[apgd-ce,square]", "batch_size=20", "threads=1"]
    victim = run_cli(tmp_path / "killed", *arguments)
    deadline = time.monotonic() + 120
    states = (tmp_path / "killed" / "runs" / "evaluations").glob
    while not any("apgd-ce" in (state := load(p.parent)) and state["apgd-ce"].done.all() for p in states("*/0.npz")):
        assert time.monotonic() < deadline
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not list((tmp_path / "killed").glob("records/*"))
    again, whole = run_cli(tmp_path / "killed", *arguments), run_cli(tmp_path / "whole", *arguments)
    for process in (again, whole):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    flags = [load_flags(next((tmp_path / name / "records").glob("*.json"))) for name in ("killed", "whole")]
    assert flags[0].keys() == flags[1].keys() == {"clean", "top5", "apgd-ce", "square"}
    assert all(np.array_equal(flags[0][name], flags[1][name]) for name in flags[0])
    record = load_all(tmp_path / "killed" / "records")[0][0]
    assert not list((tmp_path / "killed").glob("runs/evaluations/*/*"))
    assert record.robust == flags[0]["square"].mean()
    assert record.n == 60
    assert not record.is_autoattack
    assert json.loads(json.dumps(record.training))["trainer"]["epochs"] == 2
