"""A small network that is trained on digits in a second, images to attack it with, and small runs."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from dkl.assembly import train
from dkl.attacks import Perturb, autoattack, make_attack
from dkl.attacks.autoattack.attack_loop import AttackLoop, EvaluationState
from dkl.attacks.autoattack.suite import run_attacks
from dkl.attacks.autoattack.task import AttackTask
from dkl.cli import main
from dkl.config import compose_config
from dkl.data import Augment, Batches, Batching, digits
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.models import create_model
from dkl.records import Flags, Record, load, load_flags

CPU = torch.device("cpu")

Attack = Callable[[Tensor, Tensor], Tensor]


@cache
@torch.enable_grad()  # the first call may be inside no_grad
def trained() -> nn.Module:
    """A small CNN after a few epochs of plain training: accurate but not robust."""
    torch.manual_seed(0)
    model = create_model("small_cnn", 10, in_chans=1, width=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = Batches(digits()[0], Batching(64, augment=Augment(), shuffle=True))
    for epoch in range(6):
        for x, y, *_ in batches.epoch(epoch):
            noisy = (x + 0.3 * torch.rand_like(x)).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(noisy), y).backward()
            optimizer.step()
    return model.eval()


def batch_statistics() -> nn.Module:
    """The trained network with a BatchNorm without running statistics in front, in eval mode."""
    return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False, affine=False), Shifted(), trained()).eval()


class Shifted(nn.Module):
    """Images of mean 0 and variance 1 with about those of digits."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.3 + 0.38 * x


class BatchMean(nn.Module):
    """The trained network, whose logits depend on their mean over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = trained()(x)
        return logits + 2 * logits.mean(0)


def some_digits(count: int) -> tuple[Tensor, Tensor]:
    """Test images ``[count, 1, 8, 8]`` in [0, 1] and their labels."""
    test = digits()[1].balanced(count)
    return test.images.float() / 255, test.labels


def attack(
    names: list[str],
    folder: Path,
    *,
    model: nn.Module | None = None,
    batch_size: int = 10,
    eps: float = 0.06,
    wrap: Callable[[Attack], Attack] = lambda perturb: perturb,
) -> EvaluationState:
    """Attack ``model``, or the trained network, on 24 digits: Linf, seed 3. ``wrap`` is applied to every attack."""
    model = model or trained()
    wrapped = {name: wrap(make_attack(name, model, norm="linf", eps=eps, seed=3)) for name in names}
    return run(model, *some_digits(24), wrapped, batch_size=batch_size, folder=folder)


def on_the_cpu(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int, **options: Any
) -> AttackTask[EvaluationProtocol]:
    """A task without attacks of its own."""
    protocol = EvaluationProtocol([], "linf", 0.0, "0", None, batch_size, 0)
    return AttackTask(
        model=model, images=images, labels=labels, num_classes=10, protocol=protocol, device=CPU, **options
    )


def run(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Mapping[str, Perturb],
    *,
    batch_size: int,
    folder: Path | None,
    top_five: bool = False,
) -> EvaluationState:
    """Run ``attacks`` on the CPU and continue from ``folder``."""
    task = on_the_cpu(model, images, labels, batch_size=batch_size, folder=folder)
    return run_attacks(AttackLoop.of(task), attacks, top_five=top_five)


def shorten(monkeypatch: pytest.MonkeyPatch, steps: int, queries: int) -> None:
    """Give AutoAttack's attacks fewer steps and queries."""
    for name in ("apgd_ce", "apgd_targeted", "fab_targeted"):
        monkeypatch.setattr(autoattack, name, partial(getattr(autoattack, name), steps=steps))
    monkeypatch.setattr(autoattack, "square", partial(autoattack.square, queries=queries))


def shorten_package(monkeypatch: pytest.MonkeyPatch, steps: int = 3, queries: int = 10) -> None:
    """Give the attacks of AutoAttack's package fewer steps and queries, however it makes them."""

    def shorten_class(attack: type, setting: str, value: int) -> None:
        perturb = attack.perturb

        def short(self: object, *args: Tensor, **options: object) -> Tensor:
            setattr(self, setting, value)
            return perturb(self, *args, **options)

        monkeypatch.setattr(attack, "perturb", short)

    for attack in (APGDAttack, APGDAttack_targeted, FABAttack_PT):
        shorten_class(attack, "n_iter", steps)
    shorten_class(SquareAttack, "n_queries", queries)


def tiny_run(results: Path, *overrides: str) -> Path:
    """The folder of a run that takes seconds: a plain classifier of digits, right more often than not."""
    plain = ["task=classification", "loss=none", "attack=none", "optimizer.lr=0.1"]
    sizes = ["data.train_size=600", "data.test_size=40", "trainer.epochs=4", "trainer.threads=1"]
    return train(compose_config("train", [f"paths.results={results}", *plain, *sizes, *overrides]))


def only_record(results: Path) -> tuple[Record, Flags]:
    """The only record under ``results``, and its flags."""
    (path,) = (results / "records").glob("*.json")
    return load(path), load_flags(path)


def evaluate_run(run: Path, results: Path, *overrides: str) -> tuple[Record, Flags]:
    """Evaluate ``run`` by ``dkl evaluate`` into the empty folder ``results``; returns the record and its flags."""
    main(["evaluate", f"run={run}", f"paths.results={results}", "threads=1", *overrides])
    return only_record(results)
