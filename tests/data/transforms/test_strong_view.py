"""Each operation of the strong view equals torchvision's tensor kernel or USB's definition; the hole is USB's."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from dkl.data import StrongView
from dkl.data.views import HOLE_GRAY, OPERATIONS, cut_hole
from dkl.errors import UserError


def picture() -> Tensor:
    """A smooth color image with some noise, uint8 [3, 32, 32]."""
    place = torch.linspace(0, 1, 32)
    waves = torch.stack([place[:, None] * place, place.flip(0)[:, None] * place, (9 * place).sin()[:, None] + place])
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    return (40 + 150 * waves.clamp(0, 1) + 30 * noise).byte()


def moved(image: Tensor, angle: float, translate: tuple[float, float], shear: tuple[float, float]) -> Tensor:
    """torchvision's affine map with the corner as the center of shear, as in its AutoAugment."""
    center = None if angle else [0, 0]
    return tv.affine(
        image, angle, [round(t) for t in translate], 1.0, shear, InterpolationMode.NEAREST, fill=[0], center=center
    )


# operation: strength, torchvision's tensor kernel, allowed difference in levels, allowed share of other pixels.
# Shears differ by a tenth of a pixel: Pillow shears about the corner of the first pixel, torchvision about its center.
KERNELS = {
    "autocontrast": (0.5, tv.autocontrast, 1, 0),
    "brightness": (0.4, lambda image: tv.adjust_brightness(image, 0.4), 1, 0),
    "color": (0.3, lambda image: tv.adjust_saturation(image, 0.3), 1, 0),
    "contrast": (0.6, lambda image: tv.adjust_contrast(image, 0.6), 1, 0),
    "equalize": (0.5, tv.equalize, 0, 0),
    "identity": (0.5, lambda image: image, 0, 0),
    "posterize": (5.9, lambda image: tv.posterize(image, 5), 0, 0),
    "rotate": (17.0, lambda image: tv.rotate(image, 17.0, InterpolationMode.NEAREST, fill=[0]), 0, 0.02),
    "sharpness": (0.2, lambda image: tv.adjust_sharpness(image, 0.2), 1, 0),
    "shear_x": (0.2, lambda image: moved(image, 0, (0, 0), (np.degrees(np.arctan(0.2)), 0)), 0, 0.1),
    "shear_y": (0.2, lambda image: moved(image, 0, (0, 0), (0, np.degrees(np.arctan(0.2)))), 0, 0.1),
    "solarize": (100.0, lambda image: tv.solarize(image, 100), 0, 0),
    "translate_x": (0.25, lambda image: moved(image, 0, (-8, 0), (0, 0)), 0, 0),
    "translate_y": (-0.25, lambda image: moved(image, 0, (0, 8), (0, 0)), 0, 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(name: str) -> None:
    strength, kernel, levels, share = KERNELS[name]
    image = picture()
    change, low, high = OPERATIONS[name]
    assert low <= strength <= high
    ours = torch.from_numpy(np.array(change(Image.fromarray(image.permute(1, 2, 0).numpy()), strength)))
    difference = (ours.permute(2, 0, 1).int() - kernel(image).int()).abs()
    assert (difference > levels).float().mean() <= share
    assert name == "identity" or not torch.equal(ours.permute(2, 0, 1), image)


def test_the_ranges_are_usbs() -> None:
    ranges = {name: (low, high) for name, (_, low, high) in OPERATIONS.items()}
    enhance = dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.05, 0.95))
    geometry = dict.fromkeys(("shear_x", "shear_y", "translate_x", "translate_y"), (-0.3, 0.3))
    others = {"posterize": (4, 8), "rotate": (-30, 30), "solarize": (0, 256)}
    unused = dict.fromkeys(("autocontrast", "equalize", "identity"), (0, 1))
    assert ranges == enhance | geometry | others | unused


@pytest.mark.parametrize(("side", "x", "y"), [(8.0, 16.0, 16.0), (7.3, 1.0, 30.5), (16.0, 0.0, 0.0), (0.4, 5.6, 5.6)])
def test_a_hole_is_usbs(side: float, x: float, y: float) -> None:
    image = picture()
    got = torch.from_numpy(np.array(cut_hole(Image.fromarray(image.permute(1, 2, 0).numpy()), side, x, y)))
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    right, bottom = int(min(32, left + side)), int(min(32, top + side))
    expected = image.permute(1, 2, 0).clone()
    expected[top : bottom + 1, left : right + 1] = torch.tensor(HOLE_GRAY).byte()  # Pillow includes both edges
    assert torch.equal(got, expected)


def test_the_seed_fixes_the_view_and_nothing_global_does() -> None:
    image, view = picture(), StrongView()
    before = torch.get_rng_state()
    views = [view(image, seed) for seed in range(30)]
    np.random.seed(0)
    assert all(torch.equal(one, view(image, seed)) for seed, one in enumerate(views))
    assert len({one.numpy().tobytes() for one in views}) == 30
    assert torch.equal(before, torch.get_rng_state())
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in views)


def test_settings_do_what_they_say() -> None:
    image = picture()
    assert torch.equal(StrongView(operations=0, largest_hole=0.0)(image, 3), image)
    assert torch.equal(StrongView(probability=0.0, largest_hole=0.0)(image, 3), image)
    holes = [
        (StrongView(operations=0, smallest_hole=0.5, largest_hole=0.5)(image, seed) != image).any(0).sum()
        for seed in range(40)
    ]
    assert max(holes) == 17 * 17
    gray = picture()[:1]
    assert StrongView()(gray, 5).shape == gray.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": -1}, r"operations=-1 must be a whole number from 0"),
        ({"probability": 1.5}, r"probability=1\.5 must be a number in \[0, 1\]"),
        ({"smallest_hole": 0.6}, r"smallest_hole=0\.6 and data\.unlabeled\.largest_hole=0\.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        StrongView(**settings)
