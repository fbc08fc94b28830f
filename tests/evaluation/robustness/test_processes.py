"""Two processes find what one finds; stopped, either goes on where the other was; one that fails stops all."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkl.cli import main
from dkl.distributed import gather, launch, rank
from dkl.errors import UserError
from dkl.evaluation.robustness.attack_loop import run_attacks
from dkl.evaluation.robustness.progress import AttackProgress, State, load, merge, save
from dkl.evaluation.robustness.suites import make_attacks
from dkl.records import load_all
from tests.evaluation.common import CPU, attack, only_record, some_digits, tiny_run, trained

NAMES = ["pgd-3", "apgd-ce", "cw-10"]


def attack_until(model: nn.Module, folder: Path, failing: int, limit: int) -> list[int]:
    """As ``attack`` in batches of 4, but process ``failing`` stops before its batch ``limit``; sizes of batches."""
    torch.set_num_threads(1)
    images, labels = some_digits(24)
    sizes: list[int] = []

    def counted(perturb: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def inner(x: Tensor, y: Tensor) -> Tensor:
            if rank() == failing and len(sizes) == limit:
                raise UserError("the disk of this process is full")
            sizes.append(len(x))
            return perturb(x, y)

        return inner

    attacks = make_attacks(NAMES, model, norm="linf", eps=0.06, seed=3, device=CPU)
    wrapped = {name: counted(perturb) for name, perturb in attacks.items()}
    run_attacks(model, images, labels, wrapped, batch_size=4, device=CPU, folder=folder)
    return sizes


def write_result(model: nn.Module, folder: Path, results: Path) -> None:
    """``attack_until`` the end in several processes; every batch's size to a file of ``results``."""
    sizes = attack_until(model, folder, -1, 0)
    if rank() == 0:
        save(load(folder), results / "state.npz")
    np.savez(results / f"sizes{rank()}", sizes=np.array(sizes), all=np.array(sum(map(len, gather(sizes)))))


def assert_same(found: State, expected: State) -> None:
    assert list(found) == list(expected) == ["clean", *NAMES]
    for name in found:
        assert np.array_equal(found[name].flags, expected[name].flags), name
        assert found[name].done.all()
        assert len(found[name].seconds) == len(expected[name].seconds)


def left(whole: State, folder: Path) -> int:
    """How many batches of attacks are still to do, going by the files in ``folder``."""
    done = load(folder)
    return sum(len(whole[name].seconds) - (int(done[name].done.sum()) if name in done else 0) for name in NAMES)


def test_two_processes_are_stopped_and_one_goes_on(tmp_path: Path) -> None:
    whole = attack(trained(), NAMES, tmp_path / "whole", batch_size=4)
    with pytest.raises(UserError, match=r"^the disk of this process is full$"):
        launch(attack_until, (trained(), tmp_path / "two", 1, 4), processes=2, device="cpu")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"0.npz", "1.npz"}
    rest = left(whole, tmp_path / "two")
    assert 0 < rest < sum(len(whole[name].seconds) for name in NAMES)
    sizes = attack_until(trained(), tmp_path / "two", -1, 0)
    assert len(sizes) == rest, "a finished batch was lost, or done twice"
    assert_same(load(tmp_path / "two"), whole)


def test_one_process_is_stopped_and_two_go_on(tmp_path: Path) -> None:
    whole = attack(trained(), NAMES, tmp_path / "whole", batch_size=4)
    with pytest.raises(UserError):
        attack_until(trained(), tmp_path / "one", 0, 7)
    rest = left(whole, tmp_path / "one")
    launch(write_result, (trained(), tmp_path / "one", tmp_path), processes=2, device="cpu")
    sizes = [np.load(tmp_path / f"sizes{number}.npz") for number in (0, 1)]
    assert all(len(content["sizes"]) > 0 for content in sizes)
    assert [int(content["all"]) for content in sizes] == [rest, rest]
    assert_same(load(tmp_path / "one"), whole)


def comparable(record: Any) -> dict[str, Any]:
    """What of a record does not depend on time and machine."""
    content = dataclasses.asdict(record)
    for key in ("created", "seconds", "hardware", "git_commit"):
        del content[key]
    content["per_attack"] = {name: result["robust"] for name, result in content["per_attack"].items()}
    return content


def test_the_record_of_two_devices_is_that_of_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(tmp_path)
    common = [f"run={run}", "attacks=[cw-10,apgd-ce]", "batch_size=4", "eps=0.03", "threads=1"]
    main(["evaluate", *common, f"paths.results={tmp_path / 'one'}"])
    capfd.readouterr()
    main(["evaluate", *common, f"paths.results={tmp_path / 'two'}", "devices=2"])
    assert capfd.readouterr().err.count("robust") == 1  # one process speaks
    (one, flags), (two, other_flags) = only_record(tmp_path / "one"), only_record(tmp_path / "two")
    assert comparable(one) == comparable(two)
    assert 0 < one.robust < one.clean < 1
    assert two.hardware["processes"] == 2
    assert flags.keys() == other_flags.keys()
    assert all(np.array_equal(flags[name], other_flags[name]) for name in flags)
    assert not [path for path in tmp_path.glob("two/runs/evaluations/*") if path.suffix != ".lock"]


def test_torchrun_sweeps_as_one_process_does(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    sweep = ["evaluate", "-m", f"run={run}", "attacks=[cw-10]", "batch_size=4", "eps=0.02,0.04", "threads=1"]
    main([*sweep, f"paths.results={tmp_path / 'one'}"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dkl"]
    ended = subprocess.run([*launcher, *sweep, f"paths.results={tmp_path / 'two'}"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    one, two = (load_all(tmp_path / name / "records")[0] for name in ("one", "two"))
    assert len(one) == len(two) == 2
    assert [comparable(record) for record in one] == [comparable(record) for record in two]
    assert {record.hardware["processes"] for record in two} == {2}


def test_what_files_know_together(tmp_path: Path) -> None:
    nan = np.nan
    ours = {"a": AttackProgress(np.array([True, False, True]), np.array([1.0, nan, nan]))}
    theirs = {
        "a": AttackProgress(np.array([False, True, True]), np.array([nan, 2.0, nan])),
        "b": AttackProgress(np.array([True, False, False]), np.array([nan])),
    }
    for name, state in (("0", ours), ("7", theirs)):
        save(state, tmp_path / f"{name}.npz")
    for merged in (load(tmp_path), merge([theirs, ours])):
        assert merged["a"].flags.tolist() == [False, False, True]
        assert merged["a"].done.tolist() == [True, True, False]
        assert np.nansum(merged["a"].seconds) == 3.0
        assert merged["b"].flags.tolist() == [True, False, False]
    assert load(tmp_path / "absent") == {}


@pytest.mark.parametrize("devices", [0, -2])
def test_devices_that_cannot_be(devices: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "checkpoint=x.pt", "model=small_cnn", "data=digits", f"devices={devices}"])
    assert "devices" in capsys.readouterr().err
