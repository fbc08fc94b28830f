"""Several processes find what one process finds; a stopped evaluation continues with another number of processes."""

import dataclasses
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from dkl.attacks.autoattack.attack_loop import AttackProgress, EvaluationState, load, merge, save
from dkl.cli import main
from dkl.records import Record, load_all
from dkl.runtime.distributed import gather, process_group, rank
from tests.evaluation.common import Attack, attack, evaluate_run, tiny_run, trained
from tests.interruptions.forks import run as in_group

pytestmark = pytest.mark.slow

NAMES = ["pgd-3", "apgd-ce", "cw-10"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> EvaluationState:
    """The uninterrupted evaluation by one process."""
    return attack(NAMES, tmp_path_factory.mktemp("whole"), batch_size=4)


class StoppedError(Exception):
    """Represents anything that stops an evaluation."""


def attack_until(model: nn.Module, folder: Path, limit: int = 10**6) -> list[int]:
    """Attack in batches of 4 until this process has done ``limit`` of them; returns their sizes."""
    sizes: list[int] = []

    def stopping(perturb: Attack) -> Attack:
        def inner(x: Tensor, y: Tensor) -> Tensor:
            if len(sizes) == limit:
                raise StoppedError
            sizes.append(len(x))
            return perturb(x, y)

        return inner

    with suppress(StoppedError):
        attack(NAMES, folder, model=model, batch_size=4, wrap=stopping)
    return sizes


def attack_in_group(begun: Path, stopped: Path, results: Path) -> None:
    """Finish the evaluation in ``begun``, then begin one in ``stopped`` that stops after two batches per process."""
    with process_group("cpu"):
        sizes = attack_until(trained(), begun)
        np.savez(results / f"sizes{rank()}", sizes=np.array(sizes), all=np.array(sum(map(len, gather(sizes)))))
        attack_until(trained(), stopped, 2)  # both stop in the first attack, where neither waits for the other


def assert_same(found: EvaluationState, expected: EvaluationState) -> None:
    assert list(found) == list(expected) == ["clean", *NAMES]
    for name in found:
        assert np.array_equal(found[name].flags, expected[name].flags), name
        assert found[name].done.all()
        assert len(found[name].seconds) == len(expected[name].seconds)


def remaining_batches(whole: EvaluationState, folder: Path) -> int:
    """The number of attack batches that are not done according to the files in ``folder``."""
    found = load(folder)
    return sum(len(whole[name].seconds) - (int(found[name].done.sum()) if name in found else 0) for name in NAMES)


def test_one_process_is_continued_by_two_and_two_by_one(whole: EvaluationState, tmp_path: Path) -> None:
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    attack_until(trained(), begun, 7)
    remaining = remaining_batches(whole, begun)
    ended = in_group([partial(attack_in_group, begun, stopped, tmp_path)] * 2, tmp_path)
    assert [each.status for each in ended] == [0, 0], ended
    sizes = [np.load(tmp_path / f"sizes{number}.npz") for number in (0, 1)]
    assert all(len(content["sizes"]) > 0 for content in sizes)
    assert [int(content["all"]) for content in sizes] == [remaining, remaining]
    assert_same(load(begun), whole)

    assert {path.name for path in stopped.iterdir()} == {"0.npz", "1.npz"}
    remaining = remaining_batches(whole, stopped)
    assert remaining == sum(len(whole[name].seconds) for name in NAMES) - 4
    assert len(attack_until(trained(), stopped)) == remaining, "a finished batch was lost, or done twice"
    assert_same(load(stopped), whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"))


def comparable(record: Record) -> dict[str, Any]:
    """The part of a record that does not depend on time and machine."""
    content = dataclasses.asdict(record)
    for key in ("created", "seconds", "hardware", "git_commit"):
        del content[key]
    del content["checksums"]["record"]  # of all its values, time and machine included
    content["per_attack"] = {name: result["robust"] for name, result in content["per_attack"].items()}
    return content


def test_two_devices_give_the_record_of_one(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = ["attacks=[cw-10,apgd-ce]", "batch_size=4", "eps=0.03"]
    one, flags = evaluate_run(run, tmp_path / "one", *common)
    capfd.readouterr()
    two, flags_of_two = evaluate_run(run, tmp_path / "two", *common, "devices=2")
    assert capfd.readouterr().err.count("robust") == 1, "only one process prints"
    assert comparable(one) == comparable(two)
    assert 0 < one.robust < one.clean < one.top5 <= 1
    assert two.hardware["processes"] == 2
    assert flags.keys() == flags_of_two.keys()
    assert all(np.array_equal(flags[name], flags_of_two[name]) for name in flags)
    assert not [path for path in tmp_path.glob("two/runs/evaluations/*") if path.suffix != ".lock"]


def test_a_sweep_under_torchrun_gives_the_records_of_one_process(run: Path, tmp_path: Path) -> None:
    sweep = ["evaluate", "-m", f"run={run}", "attacks=[cw-3]", "batch_size=4", "eps=0.02,0.04", "threads=1"]
    main([*sweep, f"paths.results={tmp_path / 'one'}"])
    ended = in_group([partial(main, [*sweep, f"paths.results={tmp_path / 'two'}"])] * 2, tmp_path)
    assert [each.status for each in ended] == [0, 0], ended
    one, two = (load_all(tmp_path / name / "records")[0] for name in ("one", "two"))
    assert len(one) == len(two) == 2
    assert [comparable(record) for record in one] == [comparable(record) for record in two]
    assert {record.hardware["processes"] for record in two} == {2}


def test_files_of_several_processes_are_combined(tmp_path: Path) -> None:
    nan = np.nan
    ours = {"a": AttackProgress(np.array([True, False, True]), np.array([1.0, nan, nan]), np.array([2, 0, 0]))}
    theirs = {
        "a": AttackProgress(np.array([False, True, True]), np.array([nan, 2.0, nan]), np.array([0, 1, 0])),
        "b": AttackProgress(np.array([True, False, False]), np.array([nan]), np.array([0])),
    }
    for name, state in (("0", ours), ("7", theirs)):
        save(state, tmp_path / f"{name}.npz")
    for merged in (load(tmp_path), merge([theirs, ours])):
        assert merged["a"].flags.tolist() == [False, False, True]
        assert merged["a"].done.tolist() == [True, True, False]
        assert np.nansum(merged["a"].seconds) == 3.0
        assert merged["b"].flags.tolist() == [True, False, False]
    assert load(tmp_path / "absent") == {}
