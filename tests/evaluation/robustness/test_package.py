"""The flags of an evaluation are those that the AutoAttack package gives when called directly."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pyautoattack import AutoAttack

from dkl.evaluation.robustness.attack_loop import run_attacks
from dkl.evaluation.robustness.suites import make_attacks
from dkl.threat import AUTOATTACK, Norm
from tests.evaluation.common import CPU, some_digits, trained

COUNT, BATCH, SEED = 16, 10, 3


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", 0.06), ("l2", "L2", 0.3)])
def test_standard_flags_equal_the_packages_own(norm: Norm, name: Any, eps: float, tmp_path: Path) -> None:
    model = trained()
    images, labels = some_digits(COUNT)
    package = AutoAttack(model, norm=name, eps=eps, seed=SEED, device="cpu", version="standard")
    _, predicted = package.run_standard_evaluation(images, labels, batch_size=BATCH)
    attacks = make_attacks(list(AUTOATTACK), model, norm=norm, eps=eps, seed=SEED, device=CPU)
    state = run_attacks(model, images, labels, attacks, batch_size=BATCH, device=CPU, folder=tmp_path)
    flags = state["square"].flags
    assert np.array_equal(flags, (predicted == labels).numpy())
    assert 0 < flags.sum() < COUNT  # some stand, some fall: the comparison says something


@pytest.mark.parametrize("name", ["apgd-ce", "fab-t"])
def test_one_attack_equals_the_packages_own(name: Literal["apgd-ce", "fab-t"], tmp_path: Path) -> None:
    model = trained()
    images, labels = some_digits(COUNT)
    package = AutoAttack(model, norm="Linf", eps=0.06, seed=SEED, device="cpu", version="standard")
    package.attacks_to_run = [name]
    _, predicted = package.run_standard_evaluation(images, labels, batch_size=BATCH)
    attacks = make_attacks([name], model, norm="linf", eps=0.06, seed=SEED, device=CPU)
    state = run_attacks(model, images, labels, attacks, batch_size=BATCH, device=CPU, folder=tmp_path)
    assert np.array_equal(state[name].flags, (predicted == labels).numpy())
