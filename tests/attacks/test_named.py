"""The margin and the named attacks equal loops, a hand-differentiated network and the exact answer of linear models."""

import numpy as np
import pytest
import torch
from torch import nn

from dkl.attacks import margin, named_attack
from dkl.threat import Norm


def test_the_margin_equals_a_loop() -> None:
    logits, labels = torch.randn(50, 7, dtype=torch.float64), torch.randint(7, (50,))
    pairs = zip(logits, labels, strict=True)
    expected = [max(float(z) for i, z in enumerate(row) if i != y) - float(row[y]) for row, y in pairs]
    assert torch.equal(margin(logits, labels), torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(margin(logits, labels) < 0, logits.argmax(1) == labels)


def test_the_attack_on_two_classes_finds_the_exact_worst_case() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double()
    x = 0.3 + 0.4 * torch.rand(20, 1, 5, 6, dtype=torch.float64)
    y = torch.randint(2, (20,))
    towards = (model[1].weight[1 - y] - model[1].weight[y]).detach()
    with torch.no_grad():
        natural = margin(model(x), y)
        for norm, order, tolerance in (("linf", 1, 1e-12), ("l2", 2, 1e-4)):
            adversarial = named_attack(model, "cw-60", norm=norm, eps=0.1, seed=0)(x, y)
            exact = natural + 0.1 * torch.linalg.vector_norm(towards, ord=order, dim=1)
            assert torch.allclose(margin(model(adversarial), y), exact, rtol=0, atol=tolerance)


def by_hand(
    x: np.ndarray, y: np.ndarray, start: np.ndarray, layers: list[np.ndarray], eps: float, steps: int
) -> np.ndarray:
    """The CW attack image by image, for logits W2·max(W1·x, 0), with the gradient written out."""
    first, second = layers
    ends = start.copy()
    for i in range(len(x)):
        for _ in range(steps):
            hidden = first @ ends[i]
            logits = second @ np.maximum(hidden, 0)
            other = max((j for j in range(len(logits)) if j != y[i]), key=lambda j: logits[j])
            gradient = first.T @ ((hidden > 0) * (second[other] - second[y[i]]))
            moved = ends[i] + eps / 4 * np.sign(gradient)
            ends[i] = np.clip(np.minimum(np.maximum(moved, x[i] - eps), x[i] + eps), 0, 1)
    return ends


@pytest.mark.parametrize("steps", [1, 20])
def test_the_attack_equals_one_differentiated_by_hand(steps: int) -> None:
    model = nn.Sequential(nn.Linear(12, 16, bias=False), nn.ReLU(), nn.Linear(16, 5, bias=False)).double()
    x, y = torch.rand(30, 12, dtype=torch.float64), torch.randint(5, (30,))
    noise = torch.rand(30, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    start = (x + 0.2 * (2 * noise - 1)).clamp(0, 1).numpy()
    layers = [model[0].weight.detach().numpy(), model[2].weight.detach().numpy()]
    found = named_attack(model, f"cw-{steps}", norm="linf", eps=0.2, seed=4)(x, y).numpy()
    expected = by_hand(x.numpy(), y.numpy(), start, layers, 0.2, steps)
    assert np.abs(expected - start).max() > 0.01
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["pgd-5", "cw-5"])
def test_every_call_starts_from_the_same_noise_and_leaves_no_trace(name: str, norm: Norm) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x, y = torch.rand(6, 12), torch.randint(4, (6,))
    perturb = named_attack(model, name, norm=norm, eps=0.1, seed=1)
    first = perturb(x, y)
    torch.rand(3)
    assert torch.equal(perturb(x, y), first)
    assert not torch.equal(named_attack(model, name, norm=norm, eps=0.1, seed=2)(x, y), first)
    reach = (first - x).abs().amax() if norm == "linf" else (first - x).norm(dim=1).amax()
    assert 0.05 < reach <= 0.1 + 1e-6
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
