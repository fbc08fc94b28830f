"""Images and masks change together: where the mask can be computed from the image, it is the changed image's mask."""

import numpy as np
import pytest
import torch
from PIL import Image

from dkl.data import Augment, segmentation_folders
from dkl.data.joint import change, draw_joint
from dkl.errors import UserError

FILL, IGNORE = (10, 10, 10), 255


def _scene(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bands whose red value is 50 times their class, plus 50; the class is known from the pixel."""
    mask = ((torch.arange(height)[:, None] // 11 + torch.arange(width)[None] // 13) % 4).int()
    return (50 + 50 * mask).to(torch.uint8).expand(3, -1, -1).clone(), mask


@pytest.mark.parametrize("seed", range(12))
def test_the_changed_mask_is_that_of_the_changed_image(seed: int) -> None:
    image, mask = _scene(40, 60)
    augment = Augment(scale=(0.5, 2.0), rotation=30.0, flip=True, unrotated=0.2)
    draw = draw_joint(augment, torch.Generator().manual_seed(seed))
    changed, changed_mask = change(image, mask, draw, size=(48, 48), fill=FILL, ignore=IGNORE)
    assert changed.shape == (3, 48, 48)
    assert changed_mask.shape == (48, 48)
    expected = torch.where(changed[0] < 30, IGNORE, (changed[0].int() - 25) // 50)
    exact = ((changed[0].int() % 50) < 2) | (changed[0] <= 11)  # not blended with a neighbor
    assert exact.float().mean() > 0.4
    wrong = (expected != changed_mask) & exact
    assert wrong.float().mean() < 0.01  # where an interpolated value happens to be a class's


def test_each_change_is_what_it_says() -> None:
    image, mask = _scene(20, 30)
    plain = draw_joint(Augment(), torch.Generator().manual_seed(0))
    size = (20, 30)
    same = change(image, mask, plain, size=size, fill=FILL, ignore=IGNORE)
    assert torch.equal(same[0], image)
    assert torch.equal(same[1], mask)
    mirrored = change(image, mask, plain._replace(mirrored=True), size=size, fill=FILL, ignore=IGNORE)
    assert torch.equal(mirrored[1], mask.flip(1))
    blurred = change(image, mask, plain._replace(blurred=True), size=size, fill=FILL, ignore=IGNORE)
    assert torch.equal(blurred[1], mask)
    assert not torch.equal(blurred[0], image)
    larger = change(image, mask, plain, size=(24, 30), fill=FILL, ignore=IGNORE)
    assert (larger[1] == IGNORE).sum() == 4 * 30
    assert (larger[0][:, larger[1] == IGNORE] == 10).all()


def _folders(root: str, values: np.ndarray, size: tuple[int, int] = (20, 16)) -> None:
    from pathlib import Path

    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            (Path(root) / kind / split).mkdir(parents=True, exist_ok=True)
        for name in ("a", "b"):
            Image.new("RGB", size).save(Path(root) / "images" / split / f"{name}.jpg")
            Image.fromarray(values).save(Path(root) / "annotations" / split / f"{name}.png")


@pytest.mark.parametrize(
    ("classes", "ignore", "first_class", "shape", "message"),
    [
        (3, 255, 0, (16, 20), None),
        (2, 255, 0, (16, 20), r"a\.png has the value 2, but classes are 0 to 1"),
        (3, 1, 0, (16, 20), "data.ignore_index=1 is one of the 3 classes"),
        (3, None, 0, (16, 20), "data.ignore_index=null"),
        (3, 255, 0, (20, 16), r"a\.jpg is 20x16, but its mask .* is 16x20"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(
    tmp_path: object, classes: int, ignore: int | None, first_class: int, shape: tuple[int, int], message: str | None
) -> None:
    values = np.zeros(shape, np.uint8)
    values[0, 0], values[1, 1] = 2, 255
    _folders(str(tmp_path), values)
    given = (str(tmp_path), classes, ignore, (8, 8))
    if message is not None:
        with pytest.raises(UserError, match=message):
            segmentation_folders(*given, first_class=first_class)
        return
    train, test = segmentation_folders(*given)
    assert (len(train), len(test), train.largest, train.shape) == (2, 2, (16, 20), (3, 8, 8))
    assert train.pair(1).mask[1, 1] == 255
    shifted, _ = segmentation_folders(str(tmp_path), 255, 255, (8, 8), first_class=1)
    assert shifted.pair(0).mask.unique().tolist() == [1, 254, 255]  # 0 is ignored, 2 and 255 are one less
