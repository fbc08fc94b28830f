"""Models that AutoAttack cannot judge are said to be so; a sound one is not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.evaluation.checks import square_found_more, suspicious
from dkl.evaluation.suites import SUITES, parse_attacks
from dkl.records import AUTOATTACK
from tests.evaluation.common import attack, some_digits, trained


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()(x + 0.1 * torch.rand_like(x))


class Stepped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()((x * 4).round() / 4 + 0 * x)


def findings(model: nn.Module) -> str:
    return " ".join(suspicious(model, *some_digits(20)))


def test_a_sound_model_passes() -> None:
    assert findings(trained()) == ""


def test_randomised() -> None:
    assert "randomized" in findings(Noisy())


def test_probabilities_for_logits() -> None:
    assert "probability distribution" in findings(nn.Sequential(trained(), nn.Softmax(dim=1)))


def test_zero_gradients() -> None:
    assert "zero gradient" in findings(Stepped())


def test_too_few_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    x, y = some_digits(20)
    assert any("target" in text for text in suspicious(model, x, y % 4))


def test_square_that_finds_more() -> None:
    assert square_found_more({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.40})
    assert not square_found_more({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.45})


def test_attacks_are_parsed() -> None:
    assert parse_attacks("standard") == list(AUTOATTACK)
    assert parse_attacks("pgd-7") == ["pgd-7"]
    assert parse_attacks(["square", "pgd-20"]) == ["square", "pgd-20"]


@pytest.mark.parametrize("bad", ["nope", [], ["square", "square"], "apgd", ["pgd-x"], ["standard"]])
def test_unknown_attacks_are_refused_with_the_choices(bad: object) -> None:
    with pytest.raises(UserError) as error:
        parse_attacks(bad)
    assert all(name in str(error.value) for name in (*SUITES, *AUTOATTACK))


def test_no_points_left(tmp_path: Path) -> None:
    standing = attack(trained(), ["pgd-40", "apgd-ce"], tmp_path / "state.npz", eps=1.0)
    assert standing.after["pgd-40"].sum() == standing.after["apgd-ce"].sum() == 0
