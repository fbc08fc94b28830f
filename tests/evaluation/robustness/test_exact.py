"""On linear models robust accuracy has a closed form, and the attacks fool exactly the images that can be fooled."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkl.attacks import make_attack
from dkl.threat import AUTOATTACK, Norm, known_attack
from tests.evaluation.common import run


def linear(classes: int, pixels: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    torch.nn.init.normal_(model[1].weight)
    return model


def exactly_robust(model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: Norm) -> Tensor:
    """Whether no point of the ball is misclassified, for x at least eps away from 0 and 1 everywhere."""
    layer = model[1]
    logits = model(x)
    order = {"linf": 1, "l2": 2}[norm]  # the dual norm
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
    y[::10] = (y[::10] + 1) % 10  # misclassified from the start
    attacks = {name: make_attack(name, model, norm=norm, eps=eps, seed=0)}
    state = run(model, x, y, attacks, batch_size=120, folder=tmp_path)
    exact = exactly_robust(model, x, y, eps, norm).numpy()
    correct = state[name].flags
    assert 10 < exact.sum() < 100
    assert not np.any(exact & ~correct), "an image that cannot be fooled was counted as fooled"
    assert np.mean(correct & ~exact) <= (0.02 if name in ("apgd-t", "fab-t") else 0.06)


@pytest.mark.parametrize("classes", [4, 6])
def test_few_classes_are_all_targets(classes: int, tmp_path: Path) -> None:
    model = linear(classes, 64)
    x = 0.2 + 0.6 * torch.rand(40, 1, 8, 8)
    y = model(x).argmax(1)
    options = {"norm": "linf", "eps": 0.02, "seed": 0, "num_classes": classes}
    attacks = {name: make_attack(name, model, **options) for name in ("apgd-t", "fab-t")}
    state = run(model, x, y, attacks, batch_size=40, folder=tmp_path)
    exact = exactly_robust(model, x, y, 0.02, "linf").numpy()
    correct = state["fab-t"].flags
    assert 0 < exact.sum() < 40
    assert not np.any(exact & ~correct)
    assert np.sum(correct & ~exact) <= 1


def test_costs_are_counted_passes() -> None:
    """An attack that fools nothing makes about as many passes as the table says; square repeats none."""
    model = linear(5, 16).requires_grad_(False)
    x = 0.2 + 0.6 * torch.rand(2, 1, 4, 4)
    y = model(x).argmax(1)
    counts = {"forward": 0, "gradients": 0}

    def count_backward(gradient: Tensor) -> None:
        counts["gradients"] += 1

    def count(module: nn.Module, inputs: object, logits: Tensor) -> None:
        counts["forward"] += 1
        if logits.requires_grad:
            logits.register_hook(count_backward)

    model.register_forward_hook(count)
    for name in (*AUTOATTACK, "pgd-7", "cw-7"):
        counts.update(forward=0, gradients=0)
        with torch.no_grad():
            make_attack(name, model, norm="linf", eps=1e-5, seed=0, num_classes=5)(x, y)
        cost = known_attack(name).cost(5)
        if name == "square":
            # Images of 4×4 have so few windows that most queries were made before.
            assert 10 < counts["forward"] < cost.forward / 2
        else:
            assert counts["forward"] == pytest.approx(cost.forward, abs=3)
        assert counts["gradients"] == cost.gradients
        assert cost.passes == cost.forward + cost.gradients
