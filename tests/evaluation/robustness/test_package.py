"""The flags of an evaluation equal those of the AutoAttack package called directly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from dkl.attacks import make_attack
from dkl.evaluation import autoattack
from dkl.threat import AUTOATTACK, NORM_TITLES, Norm, target_classes
from tests.evaluation.common import (
    BatchMean,
    batch_statistics,
    run,
    shorten,
    shorten_package,
    some_digits,
    trained,
)

pytestmark = pytest.mark.slow

SEED = 3


class FiveClasses(nn.Module):
    """The trained network on digits from 0 to 4: four target classes instead of nine, in half the time."""

    def __init__(self) -> None:
        super().__init__()
        self.network = trained()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[:, :5]


def assert_flags_equal_the_packages(
    names: list[str], folder: Path, *, norm: Norm, eps: float, count: int, batch_size: int, classes: int = 10
) -> None:
    model = trained() if classes == 10 else FiveClasses().eval()
    images, labels = some_digits(count)
    images, labels, count = images[labels < classes], labels[labels < classes], int((labels < classes).sum())
    package = AutoAttack(model, norm=NORM_TITLES[norm], eps=eps, seed=SEED, device="cpu", version="standard")
    package.attacks_to_run = names
    package.apgd_targeted.n_target_classes = package.fab.n_target_classes = target_classes(classes)
    _, predicted = package.run_standard_evaluation(images, labels, batch_size=batch_size)
    options = {"norm": norm, "eps": eps, "seed": SEED, "num_classes": classes}
    attacks = {name: make_attack(name, model, **options) for name in names}
    state = run(model, images, labels, attacks, batch_size=batch_size, folder=folder)
    flags = state[names[-1]].flags
    assert np.array_equal(flags, (predicted == labels).numpy())
    assert 0 < flags.sum() < count  # otherwise equal flags would prove little


def test_standard_autoattack(tmp_path: Path) -> None:
    assert_flags_equal_the_packages(
        list(AUTOATTACK), tmp_path, norm="linf", eps=0.06, count=20, batch_size=12, classes=5
    )


@pytest.mark.parametrize(
    ("names", "norm", "eps"),
    [
        (list(AUTOATTACK), "linf", 0.06),
        (list(AUTOATTACK), "l2", 0.3),
        (["apgd-ce"], "linf", 0.06),
        (["fab-t"], "linf", 0.06),
        (["square"], "linf", 0.06),
    ],
)
def test_shortened_attacks_in_several_batches(
    names: list[str], norm: Norm, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides use attacks with fewer iterations, so that order, batches and seeds are compared in little time."""
    set_version = AutoAttack._set_version
    shorten(monkeypatch, steps=5, queries=50)

    def shorten_suite(self: AutoAttack, version: str = "standard") -> None:
        set_version(self, version)
        for attack in (self.apgd, self.apgd_targeted, self.fab):
            attack.n_iter = 5
        self.square.n_queries = 50

    monkeypatch.setattr(AutoAttack, "_set_version", shorten_suite)
    assert_flags_equal_the_packages(names, tmp_path, norm=norm, eps=eps, count=20, batch_size=8)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.06), ("L2", 0.3)])
@pytest.mark.parametrize("make_model", [batch_statistics, BatchMean])
def test_a_network_that_depends_on_the_batch_is_attacked_in_the_packages_batches(
    make_model: Callable[[], nn.Module], norm: str, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_package(monkeypatch, steps=5, queries=50)
    model, (images, labels) = make_model(), some_digits(20)
    package = AutoAttack(model, norm=norm, eps=eps, seed=SEED, device="cpu", version="standard")
    _, predicted = package.run_standard_evaluation(images, labels, batch_size=8)
    options = {"eps": eps, "norm": norm, "batch_size": 8, "seed": SEED}
    result = autoattack(model, images, labels, **options)
    assert torch.equal(result.robust, predicted == labels)
    assert 0 < result.robust.sum() < result.flags["clean"].sum()
    assert "depends on the other images" in " ".join(result.warnings)
    bounded = autoattack(model, images, labels, **options, attacks="bounded", tolerance=20)  # no sample of the images
    assert torch.equal(bounded.robust, result.robust)
    assert bounded.bound is None
    record = bounded.record(method="mine", dataset="digits", architecture="CNN")
    assert record.versions["attacks"] == "pyautoattack"
    assert record.warnings == result.warnings
