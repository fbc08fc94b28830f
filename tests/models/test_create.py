"""Models by name, with what is close where there is none; normalisation inside the model equals doing it by hand."""

import copy

import pytest
import timm
import torch

from dkl.errors import UserError
from dkl.models import create_model, normalize_input

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize(("wrong", "close"), [("wrn34_1", "wrn34_10"), ("preact_resnet_18", "preact_resnet18")])
def test_an_unknown_name_is_refused_with_those_close_to_it(wrong: str, close: str) -> None:
    with pytest.raises(UserError, match=f"{wrong}.*did you mean.*{close}"):
        create_model(wrong, 10)


def test_a_name_like_no_other_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"list_models"):
        create_model("§§§§§§§§§§", 10)


@pytest.mark.parametrize("given", [{"mean": MEAN}, {"std": STD}])
def test_half_a_normalisation_is_refused(given: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UserError, match="both"):
        create_model("small_cnn", 10, 3, **given)


def test_a_model_of_timm_itself_builds() -> None:
    model = create_model("resnet18", 7, 1)
    assert model.eval()(torch.rand(1, 1, 32, 32)).shape == (1, 7)


def test_arguments_go_to_the_model() -> None:
    assert create_model("small_cnn", 10, width=4).classifier.in_features == 2 * 4 * 16


def test_normalised_inside_equals_normalised_by_hand() -> None:
    plain = create_model("small_cnn", 10, 3)
    inside = create_model("small_cnn", 10, 3, mean=MEAN, std=STD)
    inside.load_state_dict(plain.state_dict())  # the same keys: checkpoints load with and without
    assert inside.state_dict().keys() == plain.state_dict().keys()
    x = torch.rand(4, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    torch.testing.assert_close(inside(x), plain(by_hand))
    assert not torch.allclose(inside(x), plain(x), atol=1e-3)


def test_normalisation_follows_copies_and_dtypes_and_passes_gradients() -> None:
    inside = normalize_input(create_model("small_cnn", 10, 3), MEAN, STD)
    copied = copy.deepcopy(inside).double()
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    torch.testing.assert_close(copied(x.double()).float(), inside(x), rtol=1e-4, atol=1e-5)
    inside.get_buffer("input_mean").zero_()
    torch.testing.assert_close(copied.get_buffer("input_mean").flatten().float(), torch.tensor(MEAN))
    (gradient,) = torch.autograd.grad(inside(x).sum(), x)
    assert gradient.abs().sum() > 0


def test_importing_registers_with_timm() -> None:
    assert {"wrn34_10", "wrn28_10", "preact_resnet18", "small_cnn"} <= set(timm.list_models())
