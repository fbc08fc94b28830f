"""``project`` returns the nearest point of the ball, by the inequality that only the nearest point satisfies; starts
lie in the ball and follow their generator."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from dkl.attacks import gaussian_start, project, uniform_start
from dkl.attacks.pgd import Norm

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
SLACK = 1e-12


@st.composite
def points(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """(anywhere, an image in [0, 1], eps), float64, two images of three to eight pixels."""
    shape = (2, draw(st.integers(3, 8)))
    anywhere = draw(arrays("float64", shape, elements=st.floats(-3, 3, allow_subnormal=False)))
    image = draw(arrays("float64", shape, elements=st.floats(0, 1, allow_subnormal=False)))
    eps = draw(st.sampled_from([0.0, 1 / 255, 8 / 255, 0.5, 1.0]))
    return torch.from_numpy(anywhere.copy()), torch.from_numpy(image.copy()), eps


def inside(x: Tensor, natural: Tensor, eps: float, norm: str, slack: float = SLACK) -> bool:
    """Whether each image lies in its ball and in [0, 1], by numpy."""
    delta = (x - natural).flatten(1).numpy().astype(np.float64)
    sizes = np.abs(delta).max(1) if norm == "linf" else np.sqrt((delta**2).sum(1))
    return bool((sizes <= eps + slack).all() and x.min() >= 0 and x.max() <= 1)


@NORMS
@given(case=points())
def test_projection_lies_inside_and_stays(norm: Norm, case: tuple[Tensor, Tensor, float]) -> None:
    anywhere, image, eps = case
    projected = project(anywhere, image, eps, norm)
    assert inside(projected, image, eps, norm)
    torch.testing.assert_close(project(projected, image, eps, norm), projected, rtol=0, atol=SLACK)


@NORMS
@given(case=points())
def test_a_point_inside_is_left_where_it_is(norm: Norm, case: tuple[Tensor, Tensor, float]) -> None:
    anywhere, image, eps = case
    share = 0.99 * eps / (anywhere.abs().amax(1) if norm == "linf" else anywhere.norm(dim=1)).clamp(min=1)
    within = (image + anywhere * share[:, None]).clamp(0, 1)
    torch.testing.assert_close(project(within, image, eps, norm), within, rtol=0, atol=1e-15)


@given(points())
def test_linf_projection_is_the_nearest_point(case: tuple[Tensor, Tensor, float]) -> None:
    # P is nearest in a convex set iff <y − P, z − P> ≤ 0 for all z in it; over a box the sum's maximum is at a corner
    anywhere, image, eps = case
    y, center = anywhere.numpy(), image.numpy()
    nearest = project(anywhere, image, eps, "linf").numpy()
    low, high = np.maximum(center - eps, 0), np.minimum(center + eps, 1)
    pull = y - nearest
    assert (np.maximum(pull * (low - nearest), pull * (high - nearest)).sum(1) <= SLACK).all()


@given(points())
def test_l2_projection_is_the_nearest_point_of_the_ball(case: tuple[Tensor, Tensor, float]) -> None:
    # the same inequality over a ball of radius r around c: max_z <v, z − P> = r·‖v‖ + <v, c − P>. Squeezed into
    # [0.4, 0.6] ± 0.3, with points already in [0, 1], the clamp to [0, 1] never acts.
    anywhere, image, eps = case
    anywhere = anywhere.clamp(0, 1)
    image, eps = 0.4 + 0.2 * image, 0.3 * eps
    nearest = project(anywhere, image, eps, "l2")
    pull = (anywhere - nearest).numpy()
    reach = eps * np.sqrt((pull**2).sum(1)) + (pull * (image - nearest).numpy()).sum(1)
    assert (reach <= SLACK).all()


@NORMS
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 10), (1, 1, 2, 2)])
def test_starts_lie_inside_and_follow_the_generator(norm: Norm, shape: tuple[int, ...]) -> None:
    x, eps = torch.rand(shape), 0.2
    first, again, other = (uniform_start(x, eps, norm, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert inside(first, x, eps, norm, slack=1e-6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    uniform_start(x, eps, norm, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)  # a generator given leaves the global one alone


def test_linf_start_is_uniform_in_every_pixel() -> None:
    x, eps = torch.full((20_000, 2), 0.5), 0.1
    quantiles = ((uniform_start(x, eps) - x) / eps).sort(0).values
    expected = torch.linspace(-1, 1, 20_000)[:, None]
    assert (quantiles - expected).abs().max() < 0.05  # Kolmogorov-Smirnov at 3.5 standard errors


def test_l2_start_is_uniform_in_volume_and_direction() -> None:
    x, eps, pixels = torch.full((20_000, 3), 0.5), 0.1, 3
    delta = (uniform_start(x, eps, "l2") - x) / eps
    volume = (delta.norm(dim=1) ** pixels).sort().values
    assert (volume - torch.linspace(0, 1, 20_000)).abs().max() < 0.025
    assert delta.mean(0).abs().max() < 0.02
    torch.testing.assert_close(delta.T @ delta / 20_000, torch.eye(3) / 5, rtol=0, atol=0.01)  # E r² / 3 = 1 / 5


def test_gaussian_start_has_its_sigma_and_generator() -> None:
    x = torch.rand(50, 3, 8, 8)
    start = gaussian_start(x, 0.001, torch.Generator().manual_seed(3))
    assert torch.equal(start, gaussian_start(x, 0.001, torch.Generator().manual_seed(3)))
    assert (start - x).std().item() == pytest.approx(0.001, rel=0.05)
    assert (start - x).mean().abs().item() < 5e-5
