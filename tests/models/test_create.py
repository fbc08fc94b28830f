"""Models by name: unknown names are refused with suggestions; normalization inside equals doing it by hand."""

import copy

import pytest
import torch

from dkl.errors import UserError
from dkl.models import create_model, normalize_input

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrn34_1", "no model 'wrn34_1': did you mean.*wrn34_10"),
        ("preact_resnet_18", "no model .*did you mean.*preact_resnet18"),
        ("§§§§§§§§§§", r"timm\.list_models\(\) lists"),
    ],
)
def test_an_unknown_name_is_refused_with_suggestions(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(name, 10)


def test_arguments_go_to_the_model_and_a_title_does_not() -> None:
    assert create_model("small_cnn", 10, width=4, title="Small").classifier.in_features == 2 * 4 * 16
    assert create_model("resnet18", 7, 1).eval()(torch.rand(1, 1, 32, 32)).shape == (1, 7)  # a model of timm itself


@pytest.mark.parametrize("name", ["small_cnn", "wrn10_2_swish"])
def test_normalized_inside_equals_normalized_by_hand(name: str) -> None:
    plain = create_model(name, 10, 3).eval()
    inside = create_model(name, 10, 3, mean=MEAN, std=STD).eval()
    inside.load_state_dict(plain.state_dict())  # the same keys: checkpoints load with and without normalization
    assert inside.state_dict().keys() == plain.state_dict().keys()
    x = torch.rand(4, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    torch.testing.assert_close(inside(x), plain(by_hand), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(inside(x), plain(x), atol=1e-3)


def test_normalization_follows_copies_and_dtypes_and_passes_gradients() -> None:
    inside = normalize_input(create_model("small_cnn", 10, 3), MEAN, STD)
    copied = copy.deepcopy(inside).double()
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    torch.testing.assert_close(copied(x.double()).float(), inside(x), rtol=1e-4, atol=1e-5)
    inside.get_buffer("input_mean").zero_()
    torch.testing.assert_close(copied.get_buffer("input_mean").flatten().float(), torch.tensor(MEAN))
    (gradient,) = torch.autograd.grad(inside(x).sum(), x)
    assert gradient.abs().sum() > 0
