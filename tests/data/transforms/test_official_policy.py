"""The official AutoAugment policy equals Pillow's calls in the official order, and differs from torchvision's."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import AutoAugmentPolicy, v2

from dkl.data import Augment, Batches, Batching
from dkl.data.views import POLICY_GRAY as GRAY
from dkl.data.views import official_policy
from tests.data.common import make_images


def affine(image: Image.Image, *numbers: float, resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers, resample, fillcolor=GRAY)


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    return Image.composite(turned, Image.new("RGBA", image.size, (128,) * 4), turned).convert("RGB")


NEAREST, BICUBIC = Image.Resampling.NEAREST, Image.Resampling.BICUBIC
SIGNED: dict[str, tuple[float, Callable[[Image.Image, float], Image.Image]]] = {
    "ShearY": (0.3, lambda image, size: affine(image, 1, 0, 0, size, 1, 0, resample=BICUBIC)),
    "TranslateX": (150 / 331, lambda image, size: affine(image, 1, 0, size * 32, 0, 1, 0, resample=NEAREST)),
    "TranslateY": (150 / 331, lambda image, size: affine(image, 1, 0, 0, 0, 1, size * 32, resample=NEAREST)),
    "Color": (0.9, lambda image, size: ImageEnhance.Color(image).enhance(1 + size)),
    "Contrast": (0.9, lambda image, size: ImageEnhance.Contrast(image).enhance(1 + size)),
    "Sharpness": (0.9, lambda image, size: ImageEnhance.Sharpness(image).enhance(1 + size)),
    "Brightness": (0.9, lambda image, size: ImageEnhance.Brightness(image).enhance(1 + size)),
}
UNSIGNED: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "Rotate": lambda image, level: rotated(image, np.linspace(0, 30, 10)[level]),
    "Posterize": lambda image, level: ImageOps.posterize(image, int(np.round(np.linspace(8, 4, 10))[level])),
    "Solarize": lambda image, level: ImageOps.solarize(image, np.linspace(256, 0, 10)[level]),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
}


def by_pillow(image: Image.Image, seed: int) -> Image.Image:
    """The policy's pairs from torchvision's table; the draws as in the official code."""
    draw, pairs = Random(seed), v2.AutoAugment(AutoAugmentPolicy.CIFAR10)._policies
    for name, probability, level in pairs[draw.randint(0, 24)]:
        if draw.random() >= probability:
            continue
        if name in SIGNED:
            largest, change = SIGNED[name]
            image = change(image, np.linspace(0, largest, 10)[level] * draw.choice([-1, 1]))
        else:
            image = UNSIGNED[name](image, level)
    return image


def test_the_policy_equals_pillows_calls() -> None:
    noise = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    smooth = torch.arange(3 * 32 * 32).view(3, 32, 32).mul(200).div(3071).byte()
    for image in (noise, smooth):
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
        for seed in range(300):
            expected = torch.from_numpy(np.array(by_pillow(pixels, seed))).permute(2, 0, 1)
            assert torch.equal(official_policy(image, seed), expected)


@pytest.mark.parametrize("kind", ["official_autoaugment", "autoaugment"])
def test_it_makes_the_second_view_unless_torchvisions_is_chosen(kind: str) -> None:
    data = make_images(20, (3, 16, 16))
    batches = Batches(data, Batching(20, augment=Augment(second_view=kind)))
    (plan,), (batch,) = batches.planner.epoch(0), batches.epoch()
    assert plan.seeds is not None
    official = torch.stack([official_policy(*pair) for pair in zip(data.images, plan.seeds.tolist(), strict=True)])
    assert torch.equal(batch.images[20:].mul(255).round().byte(), official) == (kind == "official_autoaugment")
