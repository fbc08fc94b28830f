"""Part 3: a short robust training, AutoAttack on it, and epochs of distillation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dkl import records
from dkl.assembly import train
from dkl.config import compose_config
from dkl.evaluation import evaluate
from dkl.models import create_model
from dkl.storage import checkpoint
from scripts.gpu_acceptance.speed import IMAGES
from scripts.gpu_acceptance.steps import Setting

PAIRS = (("cifar_resnet32x4", "cifar_resnet8x4"), ("cifar_resnet56", "cifar_resnet20"))


def _train(setting: Setting, *options: str) -> Path:
    given = ["data=cifar10", f"trainer.device={setting.device.type}", f"paths.results={setting.out / 'experiment'}"]
    sizes = setting.pick(
        ["data.train_size=23000", "data.test_size=1000"],
        ["data.train_size=16", "data.test_size=10", "trainer.batch_size=8", "trainer.epochs=2", "trainer.threads=1"],
    )
    return train(compose_config("train", [*given, *options, *sizes]))


def _robust(setting: Setting) -> Path:
    network = setting.pick(["trainer.epochs=8"], ["model=preact_resnet18_w16", "trainer.compile=false"])
    return _train(setting, "recipe=robust_speedrun", "loss=ikl", *network)


def robust_training(setting: Setting) -> dict[str, Any]:
    """Eight epochs of the recipe robust_speedrun on 23,000 images, then PGD-20."""
    run = _robust(setting)
    rows = checkpoint.read(run / "checkpoint.pt")["rows"]
    record = _evaluate(setting, run, "attacks=[pgd-20]", "pgd")
    rate = rows[-1]["images_per_second"]
    return {
        "seconds per epoch of 50,000": round(IMAGES / rate, 2),
        "natural accuracy": record.clean,
        "accuracy under PGD-20": record.robust,
    }


def _evaluate(setting: Setting, run: Path, attacks: str, folder: str, *options: str) -> records.Record:
    results = f"paths.results={setting.out / folder}"
    count = f"n={setting.pick(1000, 4)}"
    given = [f"run={run}", f"device={setting.device.type}", results, attacks, count, *options]
    return records.load(evaluate(compose_config("evaluate", given)))


def autoattack(batch_size: int) -> Callable[[Setting], dict[str, Any]]:
    """Standard AutoAttack on 1,000 images in batches of ``batch_size``; the small size has its first attack only."""

    def measure(setting: Setting) -> dict[str, Any]:
        attacks = setting.pick("attacks=standard", "attacks=[apgd-ce]")
        record = _evaluate(setting, _robust(setting), attacks, f"aa{batch_size}", f"batch_size={batch_size}")
        each = {name: round(result.seconds, 1) for name, result in record.per_attack.items()}
        return {"images per second": round(record.n / record.seconds, 1), "robust": record.robust, "seconds": each}

    return measure


def distillation(setting: Setting) -> dict[str, Any]:
    """Seconds per epoch of KD and IKL-KD for two pairs; the teachers have random weights."""
    found = {}
    for teacher, student in setting.pick(PAIRS, (("cifar_resnet8", "cifar_resnet8"),)):
        torch.manual_seed(0)
        path = setting.out / f"{teacher}.pt"
        torch.save(create_model(teacher, 10).state_dict(), path)
        for loss in ("kd", "ikl_kd"):
            given = [f"task.teacher.name={teacher}", f"task.teacher.checkpoint={path}", f"model={student}"]
            run = _train(setting, "recipe=kd_cifar", f"loss={loss}", *given, "optimizer.lr=1e-6", "trainer.epochs=2")
            rate = checkpoint.read(run / "checkpoint.pt")["rows"][-1]["images_per_second"]
            found[f"{student}, {loss}, s per epoch of 50,000"] = round(IMAGES / rate, 2)
    return found
