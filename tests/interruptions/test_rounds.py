"""Interrupted at random moments and started again, work ends bit for bit as without interruptions."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import write_report

CHECKOUT = Path(__file__).resolve().parents[2]
COUNT = 20
"""Interruptions of each kind of work in the test of endurance."""


def run_rounds(folder: Path, seed: int, count: int, *names: str) -> Iterator[dict[str, Any]]:
    """The figures of ``count`` interruptions of each kind of work, after every run.

    They come from a process that has one thread and all modules: its forks start at once.
    """
    command = [sys.executable, "-m", "tests.interruptions.rounds", str(folder), str(seed), str(count), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "CUDA_VISIBLE_DEVICES": ""}
    log = folder / "stderr"
    options: dict[str, Any] = {"env": environment, "cwd": folder, "stdout": subprocess.PIPE, "text": True}
    with log.open("w") as err, subprocess.Popen(command, stderr=err, **options) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
    assert process.returncode == 0, log.read_text()


def assert_survived(found: dict[str, Any], count: int) -> None:
    for name, case in found["cases"].items():
        assert sum(case["interruptions"].values()) == count, name
        assert case["unclean"] == [], name
        assert case["bit_identical"] == case["runs"] > 0, name


@pytest.mark.slow
def test_interrupted_work_ends_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    """Reproduction, which trains and evaluates, is left to the test of endurance."""
    *_, found = run_rounds(tmp_path, 0, 1, "train", "evaluate", "two machines")
    assert_survived(found, 1)


@pytest.mark.endurance
def test_a_hundred_interruptions(tmp_path: Path) -> None:
    """Writes its figures so far to results/reliability after every run."""
    for found in run_rounds(tmp_path, 1, COUNT):
        total = {key: sum(case[key] for case in found["cases"].values()) for key in ("runs", "bit_identical")}
        total["unclean"] = sum(len(case["unclean"]) for case in found["cases"].values())
        total["interruptions"] = sum(sum(case["interruptions"].values()) for case in found["cases"].values())
        write_report("interruptions", {"total": total} | found)
    assert_survived(found, COUNT)
