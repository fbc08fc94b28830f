"""Models that AutoAttack cannot judge are said to be so; a sound one is not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.evaluation.robustness.attack_loop import run_attacks
from dkl.evaluation.robustness.checks import model_warnings, square_warnings
from dkl.evaluation.robustness.suites import check_classes, make_attacks
from dkl.threat import AUTOATTACK, SUITES, parse_attacks, parse_steps
from tests.evaluation.common import CPU, attack, some_digits, trained


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()(x + 0.1 * torch.rand_like(x))


class Stepped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return trained()((x * 4).round() / 4 + 0 * x)


def findings(model: nn.Module) -> str:
    return " ".join(model_warnings(model, *some_digits(20)))


def test_a_sound_model_passes() -> None:
    assert findings(trained()) == ""


def test_randomised() -> None:
    assert "randomized" in findings(Noisy())


def test_probabilities_for_logits() -> None:
    assert "probability distribution" in findings(nn.Sequential(trained(), nn.Softmax(dim=1)))


def test_zero_gradients() -> None:
    assert "zero gradient" in findings(Stepped())


@pytest.mark.parametrize("classes", [4, 6])
def test_few_classes_are_all_aimed_at(classes: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    x, y = some_digits(20)
    attacks = make_attacks(list(AUTOATTACK), model, norm="linf", eps=0.02, seed=0, device=CPU, num_classes=classes)
    y = model(x).argmax(1)
    attacks = {name: attacks[name] for name in ("apgd-t", "fab-t")}
    state = run_attacks(model, x, y, attacks, batch_size=20, device=CPU, folder=tmp_path)
    exact = torch.ones(20, dtype=torch.bool)
    for j in range(classes):
        reach = 0.02 * (model[1].weight[y] - model[1].weight[j]).abs().sum(1)
        gap = model(x).gather(1, y[:, None]).squeeze(1) - model(x)[:, j]
        exact &= (y == j) | (gap > reach)
    assert not (exact.numpy() & ~state["fab-t"].flags).any()  # images touch 0 and 1, so exact is a lower bound


def test_too_few_classes_are_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"attacks=\[apgd-ce,fab-t,square\]"):
        check_classes(["apgd-t"], 3)
    check_classes(["fab-t", "square"], 2)


def test_square_that_finds_more() -> None:
    assert square_warnings({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.40})
    assert not square_warnings({"apgd-ce": 0.5, "apgd-t": 0.45, "square": 0.45})


def test_attacks_are_parsed() -> None:
    assert parse_attacks("standard") == list(AUTOATTACK)
    assert parse_attacks("none") == []
    assert parse_attacks("pgd-7") == ["pgd-7"]
    assert parse_attacks(["square", "pgd-20", "cw-20"]) == ["square", "pgd-20", "cw-20"]
    assert (parse_steps("pgd-7"), parse_steps("cw-100"), parse_steps("square")) == (("pgd", 7), ("cw", 100), None)


@pytest.mark.parametrize("bad", ["nope", [], ["square", "square"], "apgd", ["pgd-x"], ["standard"], ["none"]])
def test_unknown_attacks_are_refused_with_the_choices(bad: object) -> None:
    with pytest.raises(UserError) as error:
        parse_attacks(bad)
    assert all(name in str(error.value) for name in (*SUITES, *AUTOATTACK, "pgd-K", "cw-K"))


def test_no_points_left(tmp_path: Path) -> None:
    state = attack(trained(), ["pgd-40", "apgd-ce"], tmp_path, eps=1.0)
    assert state["pgd-40"].flags.sum() == state["apgd-ce"].flags.sum() == 0
    assert len(state["apgd-ce"].seconds) == 0
