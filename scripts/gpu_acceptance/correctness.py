"""Part 1: versions, tests of the GPU, and results that equal those of the CPU."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dkl.assembly import train
from dkl.config import compose_config
from dkl.evaluation import evaluate
from dkl.evaluation.make_record import versions
from dkl.losses import GKL, IKL, KL
from dkl.records import load_flags
from dkl.runtime import device
from dkl.storage import checkpoint
from scripts.gpu_acceptance.steps import Setting

TINY = (
    *("data=cifar10", "data.train_size=96", "data.test_size=40", "trainer.batch_size=32", "trainer.epochs=2"),
    *("loss=ikl", "model=wrn10_2", "task.awp.gamma=0.005", "task.awp.start=1", "trainer.threads=1"),
    *("attack.steps=2", "attack.relative_step=0.5"),
)


def machine(setting: Setting) -> dict[str, Any]:
    """Versions, and the accelerator's name."""
    return {"device": setting.device.type, "name": device.describe(setting.device), **versions()}


def gpu_tests(setting: Setting) -> dict[str, Any]:
    """The tests that need a GPU; in the small size they are only collected."""
    root = Path(__file__).resolve().parents[2]
    files = ["tests/gpu", "tests/data/loading/test_prefetch.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command + setting.pick([], ["--collect-only"]), cwd=root, capture_output=True, text=True, timeout=400
    )
    return {"exit code": done.returncode, "last line": (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]}


def losses(setting: Setting) -> dict[str, Any]:
    """The largest relative difference of gradients on CPU and device."""
    torch.manual_seed(0)
    m, n = torch.randn(2, 64, 100, dtype=torch.float64)
    weights = torch.rand(64, 100, dtype=torch.float64).softmax(-1)
    found = {}
    for loss in (KL(), IKL(), GKL()):
        gradients = []
        for place in (torch.device("cpu"), setting.device):
            a, b = (values.to(place).requires_grad_() for values in (m, n))
            value = loss(a, b) if isinstance(loss, KL) else loss(a, b, weights=weights.to(place))
            gradients.append([one.cpu() for one in torch.autograd.grad(value, (a, b))])
        pairs = zip(*gradients, strict=True)
        found[type(loss).__name__] = max(float((x - y).abs().max() / x.abs().max()) for x, y in pairs)
    return found


def _train(setting: Setting, folder: str, place: str, *options: str) -> Path:
    results = f"paths.results={setting.out / folder}"
    return train(compose_config("train", [*TINY, results, f"trainer.device={place}", *options]))


def training(setting: Setting) -> dict[str, Any]:
    """The largest difference of weights after six steps in float64; TRADES' start is drawn on each device, so none."""
    still = ("trainer.precision=float64", "attack.sigma=0")
    here, there = (
        checkpoint.read(_train(setting, f"float64-{place}", place, *still) / "checkpoint.pt")["model"]
        for place in ("cpu", setting.device.type)
    )
    return {"largest difference": max(float((here[name] - there[name]).abs().max()) for name in here)}


def flags(setting: Setting) -> dict[str, Any]:
    """How many flags of PGD-20 differ between CPU and device."""
    size = setting.pick(("data.train_size=2000", "trainer.epochs=5", "data.test_size=500"), ())
    run = _train(setting, "flags", "cpu", "task.awp.gamma=0", *size)
    found = []
    for place in ("cpu", setting.device.type):
        results = f"paths.results={setting.out / 'flags' / place}"
        given = [f"run={run}", results, f"device={place}", "attacks=[pgd-20]", "eps=2/255"]
        found.append(load_flags(evaluate(compose_config("evaluate", given)))["pgd-20"])
    return {"images": len(found[0]), "different": int(np.sum(found[0] != found[1]))}


def crossing(setting: Setting) -> dict[str, Any]:
    """A run of which the CPU has trained the first epoch, and the device the second."""
    folder = _train(setting, "crossing", "cpu")
    content = checkpoint.read(folder / "checkpoint.pt")
    content |= {"epoch": 1, "rows": content["rows"][:1]}
    checkpoint.save(folder / "checkpoint.pt", content)
    _train(setting, "crossing", setting.device.type)
    return {"epochs": checkpoint.read(folder / "checkpoint.pt")["epoch"]}
