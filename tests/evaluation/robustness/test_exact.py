"""On a linear model, where robust accuracy has a closed form, the attacks leave exactly the points that stand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkl.evaluation.robustness.attack_loop import run_attacks
from dkl.evaluation.robustness.suites import make_attacks
from dkl.threat import Norm
from tests.evaluation.common import CPU


def linear(classes: int, pixels: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    torch.nn.init.normal_(model[1].weight)
    return model


def exactly_robust(model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: Norm) -> Tensor:
    """Whether no point of the ball is misclassified, for x at least eps away from 0 and 1 everywhere."""
    layer = model[1]
    logits = model(x)
    order = {"linf": 1, "l2": 2}[norm]
    robust = torch.ones(len(x), dtype=torch.bool)
    for j in range(logits.shape[1]):
        other = y != j
        reach = eps * torch.linalg.vector_norm(layer.weight[y] - layer.weight[j], ord=order, dim=1)
        robust &= ~other | (logits.gather(1, y[:, None]).squeeze(1) - logits[:, j] > reach)
    return robust


@torch.no_grad()
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.1)])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "pgd-100", "cw-100"])
def test_attacks_find_what_exists_and_nothing_else(name: str, norm: Norm, eps: float, tmp_path: Path) -> None:
    model = linear(10, 36)
    x = 0.2 + 0.6 * torch.rand(120, 1, 6, 6)
    y = model(x).argmax(1)
    y[::10] = (y[::10] + 1) % 10  # some are wrong from the start
    attacks = make_attacks([name], model, norm=norm, eps=eps, seed=0, device=CPU)
    state = run_attacks(model, x, y, attacks, batch_size=50, device=CPU, folder=tmp_path)
    exact = exactly_robust(model, x, y, eps, norm).numpy()
    found = state[name].flags
    assert 10 < exact.sum() < 100
    assert not np.any(exact & ~found), "a point that nothing can move was counted as fooled"
    assert np.mean(found & ~exact) <= (0.02 if name in ("apgd-t", "fab-t") else 0.06)
