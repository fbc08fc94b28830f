"""The parts of AutoAttack's attacks: FAB's projection against the package's, and Square on part of a batch."""

import pytest
import torch
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.square import SquareAttack

from dkl.attacks.autoattack import apgd_ce, apgd_targeted, square
from dkl.attacks.autoattack.fab import project_onto_hyperplane
from dkl.attacks.autoattack.square import _window_side
from dkl.threat import Norm


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_equals_the_packages_by_sorting(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 48, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)  # many pixels are at a bound
    w = torch.randn(400, 48, generator=generator)
    w[:, :5] = 0
    # From hyperplanes through the point to hyperplanes outside the box, on both sides.
    b = (w * x).sum(1) + torch.randn(400, generator=generator) * torch.logspace(-3, 2, 400)
    package = {"linf": projection_linf, "l2": projection_l2}[norm]
    expected = package(x, w, b)
    found = project_onto_hyperplane(x, w, (w * x).sum(1) - b, norm)
    outside = ((x + expected) * w).sum(1).sub(b).abs() > 1e-3
    assert 20 < outside.sum() < 380
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5)


def test_square_on_part_of_a_batch_gives_the_images_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 12), torch.nn.ReLU(), torch.nn.Linear(12, 5))
    model.eval().requires_grad_(False)
    x = torch.rand(12, 3, 8, 8)
    y = model(x).argmax(1)
    options = {"norm": "linf", "eps": 0.05, "seed": 4, "queries": 60}
    whole = square(model, x, y, **options)
    part = torch.tensor([7, 2, 11])
    assert 0 < (model(whole).argmax(1) != y).sum() < 12
    assert torch.equal(
        square(model, x[part], y[part], places=part, lengths=torch.full((3,), 12), **options), whole[part]
    )


def test_square_finds_what_the_package_finds_without_repeating_queries() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 12), torch.nn.ReLU(), torch.nn.Linear(12, 5))
    model.eval().requires_grad_(False)
    x = torch.rand(40, 3, 4, 4)
    y = model(x).argmax(1)
    seen: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    package = SquareAttack(model, norm="Linf", n_queries=600, eps=0.05, p_init=0.8, seed=4, resc_schedule=False)
    expected = package.perturb(x, y)
    asked = sum(seen)
    seen.clear()
    found = square(model, x, y, norm="linf", eps=0.05, seed=4, queries=600)
    assert torch.equal(found, expected)
    assert 10 < (found != x).flatten(1).any(1).sum() < 30
    assert sum(seen) < asked / 2

    assert torch.equal(square(model, x[:0], y[:0], norm="linf", eps=0.05, seed=4), x[:0])
    assert square(model, x, y, norm="linf", eps=0.05, seed=4, queries=0).shape == x.shape
    for query in (9, 11, 4001, 6000, 6001, 8000, 8001, 9999):
        assert _window_side(query, 32, 32) == round((package.p_selection(query) * 32 * 32) ** 0.5)

    # A randomized network is asked every time.
    seen.clear()
    model.register_forward_hook(lambda module, inputs, output: output + 1e-4 * torch.rand_like(output))
    square(model, x[:1], y[:1], norm="linf", eps=1e-4, seed=4, queries=100)
    assert sum(seen) == 104


@pytest.mark.parametrize(("side", "eps"), [(10, 0.5), (11, 0.5)])
def test_square_for_l2_finds_what_the_package_finds_batch_by_batch(side: int, eps: float) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * side * side, 32), torch.nn.ReLU())
    model.append(torch.nn.Linear(32, 5)).eval().requires_grad_(False)
    x = torch.rand(40, 3, side, side)
    y = model(x).argmax(1)
    options = {"norm": "L2", "eps": eps, "n_queries": 150, "p_init": 0.8, "seed": 4, "resc_schedule": False}
    package = SquareAttack(model, **options)
    expected = torch.cat([package.perturb(*part) for part in zip(x.split(24), y.split(24), strict=True)])
    found = square(model, x, y, norm="l2", eps=eps, seed=4, queries=150, batches=[24, 16])
    assert torch.equal(found, expected)
    assert 3 < (found != x).flatten(1).any(1).sum() < 40


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_on_several_batches_draws_for_each_as_alone(norm: Norm) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 12), torch.nn.ReLU(), torch.nn.Linear(12, 5))
    model.eval().requires_grad_(False)
    x = torch.rand(30, 3, 4, 4)
    y = model(x).argmax(1)
    options = {"norm": norm, "eps": 0.03 if norm == "linf" else 0.15, "seed": 4, "steps": 10}
    for attack, more in ((apgd_ce, {"restarts": 2}), (apgd_targeted, {"targets": 4})):
        parts = zip(x.split(12), y.split(12), strict=True)
        alone = torch.cat([attack(model, *part, **options, **more) for part in parts])
        torch.testing.assert_close(attack(model, x, y, batches=[12, 12, 6], **options, **more), alone)
        assert 3 < (alone != x).flatten(1).any(1).sum() < 30
