"""A broken network has no result: logits that are not finite never count as correct."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.attacks import make_attack
from dkl.attacks.autoattack.checks import nonfinite_warnings
from dkl.errors import UserError
from tests.evaluation.common import run


class Fragile(nn.Module):
    """Predicts class 0 everywhere, but NaN for images with a pixel above 1/2."""

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.tensor([1.0, 0.0, 0.0, 0.0]) - x.flatten(1).sum(1, keepdim=True) * torch.tensor([0.1, 0, 0, 0])
        return logits.masked_fill((x.flatten(1).amax(1) > 0.5)[:, None], torch.nan)


def _images(*brightest: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(brightest).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), torch.zeros(len(brightest), dtype=torch.int64)


def test_nonfinite_logits_on_clean_images_are_an_error_that_names_the_image(tmp_path: Path) -> None:
    x, y = _images(0.1, 0.2, 0.9)
    with pytest.raises(UserError, match="not finite on 1 of 1 clean images, the first of them number 2"):
        run(Fragile(), x, y, {}, batch_size=2, folder=tmp_path)


def test_nonfinite_logits_under_attack_count_as_misclassified(tmp_path: Path) -> None:
    x, y = _images(0.1, 0.2, 0.3)
    brighten = {"pgd-1": lambda x, y: x + 0.3}

    def evaluate() -> tuple[list[bool], list[str]]:
        state = run(Fragile(), x, y, brighten, batch_size=2, folder=tmp_path)
        counts = {name: int(progress.nonfinite.sum()) for name, progress in state.items()}
        return state["pgd-1"].flags.tolist(), nonfinite_warnings(counts)

    flags, warnings = evaluate()
    assert flags == [True, True, False]
    assert warnings == ["pgd-1: the logits of 1 attacked images are not finite; these images count as misclassified"]
    assert evaluate() == (flags, warnings), "the count is part of the saved progress"


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "square"])
def test_autoattack_finds_logits_that_become_nonfinite(name: str) -> None:
    """All images have the label 0, which is also the argmax of NaN."""
    x, y = _images(0.499, 0.45, 0.1)
    attack = make_attack(name, Fragile(), norm="linf", eps=0.1, seed=0, num_classes=4)
    found = attack(x, y)
    assert Fragile()(found).isnan().any(1).tolist() == [True, True, False]
    assert (found - x).abs().max() <= 0.1 + 1e-6
