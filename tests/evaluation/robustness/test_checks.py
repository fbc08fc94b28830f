"""AutoAttack's checks warn of models that it cannot evaluate, and of no sound model."""

from collections.abc import Callable

import pytest
from torch import Tensor, nn, rand_like

from dkl.evaluation.robustness.checks import model_warnings, square_warnings
from tests.evaluation.common import some_digits, trained


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()(x + 0.1 * rand_like(x))


class Stepped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()((x * 4).round() / 4 + 0 * x)


@pytest.mark.parametrize(
    ("make_model", "warning"),
    [
        (Noisy, "randomized"),
        (lambda: nn.Sequential(trained(), nn.Softmax(dim=1)), "probability distribution"),
        (Stepped, "zero gradient"),
    ],
    ids=["random", "probabilities", "zero gradients"],
)
def test_a_model_that_cannot_be_evaluated_is_warned_of(make_model: Callable[[], nn.Module], warning: str) -> None:
    assert warning in " ".join(model_warnings(make_model(), *some_digits(20)))


def test_a_sound_model_passes() -> None:
    assert model_warnings(trained(), *some_digits(20)) == []


def test_square_that_finds_more() -> None:
    assert square_warnings({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.40})
    assert not square_warnings({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.45})
