"""Interrupted at random moments and started again, work ends bit for bit as without interruptions."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dkl.evaluation.outputs.provenance import git_commit

CHECKOUT = Path(__file__).resolve().parents[2]
REPORT = CHECKOUT / "results" / "reliability" / "interruptions.json"


def run_rounds(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """The figures of ``count`` interruptions of each kind of work, from a process without threads, which can fork."""
    command = [sys.executable, "-m", "tests.interruptions.rounds", str(folder), str(seed), str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def assert_survived(found: dict[str, Any], count: int) -> None:
    for name, case in found["cases"].items():
        assert sum(case["interruptions"].values()) == count, name
        assert case["unclean"] == [], name
        assert case["bit_identical"] == case["runs"] > 0, name


@pytest.mark.slow
def test_interrupted_work_ends_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    assert_survived(run_rounds(tmp_path, seed=0, count=2), 2)


@pytest.mark.endurance
def test_a_hundred_interruptions(tmp_path: Path) -> None:
    """Writes its figures to results/reliability."""
    found = run_rounds(tmp_path, seed=1, count=30)
    about = {
        "command": "make test-endurance",
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(about | found, indent=2) + "\n")
    assert_survived(found, 30)
