"""Suites beyond the standard one: AutoAttack's settings, restarts, and randomized networks."""

from functools import partial

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from dkl.attacks import make_attack
from dkl.errors import UserError
from dkl.evaluation import autoattack
from dkl.threat import AUTOATTACK, NORM_TITLES, SUITES, known_attack, parse_attacks
from tests.evaluation.common import CPU, some_digits, trained

OPTIONS = {"eps": 0.06, "seed": 3, "device": CPU}


@pytest.mark.parametrize(
    ("names", "norm", "version"),
    [
        (AUTOATTACK, "l1", "standard"),
        (AUTOATTACK, "l2", "standard"),
        (("apgd-ce-r5", "apgd-dlr-r5", "fab-r5", "square", "apgd-t", "fab-t"), "linf", "plus"),
        (("apgd-ce-eot", "apgd-dlr-eot"), "linf", "rand"),
    ],
)
def test_the_packages_attacks_have_the_settings_of_its_suites(names: tuple[str, ...], norm: str, version: str) -> None:
    model = nn.Flatten()
    package = AutoAttack(model, norm=NORM_TITLES[norm], eps=0.06, seed=3, device=CPU, version=version)
    if version != "standard":
        assert tuple(name.partition("-r")[0].removesuffix("-eot") for name in SUITES[version]) == tuple(
            package.attacks_to_run
        )
    parts = {"apgd-ce": "apgd", "apgd-dlr": "apgd", "apgd-t": "apgd_targeted", "fab": "fab", "fab-t": "fab"}
    for name in names:
        perturb = make_attack(name, model, norm=norm, package=True, **OPTIONS)
        base = name.partition("-r")[0].removesuffix("-eot")
        expected = vars(getattr(package, parts.get(base, "square"))) | {
            "apgd": {"loss": base.removeprefix("apgd-")},
            "fab": {"targeted": base == "fab-t", "n_restarts": 5 if base == "fab" else 1},
        }.get(parts.get(base, ""), {})
        assert vars(perturb.__wrapped__.__self__) == expected, name


@pytest.mark.parametrize(("name", "loss"), [("apgd-ce-r3", "ce"), ("apgd-dlr-r3", "dlr")])
def test_restarts_have_the_packages_flags(name: str, loss: str) -> None:
    images, labels = some_digits(30)
    kept = trained()(images).argmax(1) == labels
    x, y = images[kept], labels[kept]
    ours = partial(make_attack(name, trained(), norm="linf", **OPTIONS), steps=4)(x, y)
    package = APGDAttack(trained(), n_restarts=3, n_iter=4, loss=loss, eps=0.06, seed=3, device=CPU)
    with torch.no_grad():
        found, expected = (trained()(adversarial).argmax(1) == y for adversarial in (ours, package.perturb(x, y)))
    assert torch.equal(found, expected)
    assert 0 < found.sum() < len(y)


def test_restarts_of_pgd_keep_what_the_first_start_fooled() -> None:
    images, labels = some_digits(60)
    correct = []
    for name in ("pgd-1", "pgd-1-r9"):
        perturb = make_attack(name, trained(), norm="linf", **OPTIONS)
        correct.append(trained()(perturb(images, labels)).argmax(1) == labels)
    once, several = correct
    assert not (several & ~once).any()
    assert several.sum() < once.sum()
    assert known_attack("pgd-1-r9").cost(10).passes == 9 * known_attack("pgd-1").cost(10).passes


class Noisy(nn.Module):
    """A linear network on images with noise."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.linear, self.noise = nn.Linear(12, 4), noise

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear((x + self.noise * torch.randn_like(x)).flatten(1))
        return logits


@pytest.mark.parametrize(
    ("noise", "attacks", "warning"),
    [
        (0.02, "rand", "vary if they are measured again"),
        (0.0, "rand", "standard is stronger"),
        (0.02, "pgd-2", "=rand"),
    ],
)
def test_randomness_is_found_and_said(noise: float, attacks: str, warning: str) -> None:
    torch.manual_seed(0)
    model, images = Noisy(noise), torch.rand(3, 3, 2, 2)
    labels = model.linear(images.flatten(1)).argmax(1)
    result = autoattack(model, images, labels, eps=0.01, attacks=attacks)
    assert warning in " ".join(result.warnings)
    assert result.attacks == parse_attacks(attacks)


@pytest.mark.parametrize("attacks", [["pgd-20"], ["apgd-dlr"], "rand", "plus"])
def test_l1_has_the_standard_attacks_only(attacks: str | list[str]) -> None:
    with pytest.raises(UserError, match="has no norm=l1"):
        autoattack(nn.Flatten(), torch.rand(1, 1, 2, 2), torch.zeros(1).long(), eps=1, norm="L1", attacks=attacks)


def test_l1_stays_within_its_radius() -> None:
    torch.manual_seed(0)
    model, images = Noisy(0.0), torch.rand(6, 3, 2, 2)
    labels = model.linear(images.flatten(1)).argmax(1)
    perturb = make_attack("fab-t", model, norm="l1", eps=1.0, seed=0, num_classes=4)
    moved = perturb(images, labels)
    result = autoattack(model, images, labels, eps=1.0, norm="L1", attacks=["fab-t"])
    assert torch.equal(result.robust, model(moved).argmax(1) == labels)
    fooled = ~result.robust
    assert fooled.any()
    assert (moved - images).flatten(1).abs().sum(1)[fooled].max() <= 1 + 1e-5
    assert result.record(method="m", dataset="d", architecture="a").norm == "L1"
