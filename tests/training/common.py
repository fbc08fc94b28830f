"""Tiny runs on digits: a small network, few images, few steps of attack."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from dkl import checkpoint
from dkl.config import compose_config

TINY = ("data.train_size=96", "data.test_size=40", "trainer.batch_size=32", "trainer.threads=1")


def make_config(results: Path, *overrides: str, epochs: int = 3) -> DictConfig:
    """A run of seconds with IKL, whose prior is state, unless told otherwise."""
    return compose_config("train", [*TINY, f"trainer.epochs={epochs}", f"paths.results={results}", *overrides])


def start(arguments: list[str], cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """Python with ``arguments`` in another process, one thread, its output captured."""
    checkout = str(Path(__file__).resolve().parents[2])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": checkout} | environment
    env.pop("WANDB_SERVICE", None)  # set in this process by an earlier test: a child would share its wandb service
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """What a process printed; fails with it where the process failed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out + err


def assert_equal(got: Any, expected: Any, where: str = "") -> None:
    """Bit for bit, and the same kinds all the way down."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(got, expected), where
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_equal(got[key], value, f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), where
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert_equal(one, other, f"{where}/{number}")
    else:
        assert got == expected, where


def comparable(folder: Path) -> dict[str, Any]:
    """All of a run's checkpoint but speeds and the paths in its configuration."""
    content: dict[str, Any] = checkpoint.read(folder / "checkpoint.pt")
    for row in content["rows"]:
        del row["images_per_second"]
    del content["config"]["paths"]
    return content
