"""AutoAttack's checks warn of models that it cannot evaluate, and of no sound model."""

import copy
from collections.abc import Callable

import pytest
from torch import Generator, Tensor, enable_grad, linspace, nn, no_grad, rand, rand_like

from dkl.attacks.autoattack.checks import check_model, final_warnings
from dkl.errors import UserError
from tests.evaluation.common import BatchMean, batch_statistics, some_digits, trained


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()(x + 0.1 * rand_like(x))


class Adapting(nn.Module):
    """Moves its input by a gradient step first."""

    def forward(self, x: Tensor) -> Tensor:
        with enable_grad():
            leaf = x.detach().clone().requires_grad_()
            trained()(leaf).amax(1).sum().backward()
        return trained()(x + 0.01 * leaf.grad.sign())


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :10] + linspace(0, 2, 10)


class Stepped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()((x * 4).round() / 4 + 0 * x)


class SometimesNoisy(Noisy):
    """Random in every tenth pass."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return trained()(x) if self.calls % 10 else super().forward(x)


class OfPlaces(nn.Module):
    """Adds the same noise in every pass, another for each place in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return trained()(x + 0.3 * rand(x.shape, generator=Generator().manual_seed(0)))


class Straightened(nn.Module):
    """Rounds its input and passes the gradient on as if it did not."""

    def forward(self, x: Tensor) -> Tensor:
        return trained()(x + ((x * 4).round() / 4 - x).detach())


class Hiding(nn.Module):
    """Blurs its input if somebody asks for a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return trained()(0.5 * x if x.requires_grad else x)


class LowPrecision(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return copy.deepcopy(trained()).bfloat16()(x.bfloat16()).float()


@pytest.mark.parametrize(
    ("make_model", "warning"),
    [
        (Noisy, "randomized"),
        (SometimesNoisy, "randomized"),
        (batch_statistics, "depends on the other images"),
        (BatchMean, "depends on the other images"),
        (OfPlaces, "or on its place"),
        (lambda: nn.Sequential(trained(), nn.Softmax(dim=1)), "probability distribution"),
        (Stepped, "zero gradient"),
        (Adapting, "differentiates"),
        (Straightened, "not the slope"),
        (Hiding, "another way if a gradient is asked for"),
        (Constant, "equal for all images"),
    ],
    ids=[
        "random",
        "sometimes random",
        "statistics of the batch",
        "mean of the batch",
        "places",
        "probabilities",
        "zero gradients",
        "adapting",
        "straight-through gradient",
        "another network for gradients",
        "constant",
    ],
)
def test_a_model_that_cannot_be_evaluated_is_warned_of(make_model: Callable[[], nn.Module], warning: str) -> None:
    found = check_model(make_model(), *some_digits(20))
    assert warning in " ".join(found.warnings)
    assert found.whole_batches == any(word in warning for word in ("randomized", "depends", "place"))


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_a_sound_model_passes(count: int) -> None:
    for model in (trained(), LowPrecision()):
        assert check_model(model, *some_digits(count)) == ([], False)


def test_square_that_finds_more() -> None:
    assert "a further 5.00 points" in final_warnings({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.40}, {}, 0, 9)[0]
    assert not final_warnings({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.45}, {}, 0, 9)


def test_attacks_by_gradient_need_a_network_with_gradients() -> None:
    @no_grad()
    def forward(x: Tensor) -> Tensor:
        return trained()(x)

    x, y = some_digits(4)
    assert "zero gradient" in " ".join(check_model(forward, x, y).warnings)
    with pytest.raises(UserError, match=r"apgd-ce follows gradients, .* use attacks=.square."):
        check_model(forward, x, y, by_gradient="apgd-ce")
