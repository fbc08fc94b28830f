"""Tiny runs on digits, and comparisons of what they leave."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from dkl.config import compose_config
from dkl.storage import checkpoint

OWN_ATTACK = ("attack=none", "+attack={_target_: tests.training.common.noise, norm: linf, eps: 0.1, share: 0.5}")
TINY = ("data.train_size=96", "data.test_size=40", "trainer.batch_size=32", "trainer.threads=1")


def make_config(results: Path, *overrides: str, epochs: int = 3) -> DictConfig:
    """A run of seconds; by default with IKL, whose class prior is part of the state."""
    return compose_config("train", [*TINY, f"trainer.epochs={epochs}", f"paths.results={results}", *overrides])


def noise(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, eps: float, seed: int, share: float
) -> Tensor:
    """The attack of ``OWN_ATTACK``: uniform noise of a ``share`` of the radius."""
    return (images + share * eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)


def start(arguments: list[str], cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start Python with ``arguments`` in another process with one thread and captured output."""
    checkout = str(Path(__file__).resolve().parents[2])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": checkout} | environment
    env.pop("WANDB_SERVICE", None)  # an earlier test may have set it; the child would share its service
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 300) -> str:
    """Wait ``seconds`` for ``process`` and return what it printed; fails if the process failed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out + err


def assert_equal(got: Any, expected: Any, path: str = "") -> None:
    """Assert that nested structures are equal, tensors bit for bit; ``path`` leads to this part."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(got, expected), path
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys(), path
        for key, value in expected.items():
            assert_equal(got[key], value, f"{path}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), path
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert_equal(one, other, f"{path}/{number}")
    else:
        assert got == expected, path


def comparable(folder: Path) -> dict[str, Any]:
    """Return a run's checkpoint without speeds and without the paths in its configuration."""
    content: dict[str, Any] = checkpoint.read(folder / "checkpoint.pt")
    for row in content["rows"]:
        del row["epoch_seconds"], row["images_per_second"]
    del content["config"]["paths"]
    return content
