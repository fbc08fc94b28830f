"""Images with masks: pairs of folders such as ADE20K's and CamVid's, and generated scenes with exact masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch

from dkl.data.images.encoded import IMAGE_SUFFIXES
from dkl.data.images.labeled_pixels import PixelLabels, SegmentationArrays, SegmentationFiles
from dkl.data.sources.digits import digits
from dkl.errors import UserError
from dkl.validation import CLASSES, COUNT, LABEL, MEAN, SIDE, Range

GRAY = (0.5, 0.5, 0.5)


def _pixels(
    num_classes: int, ignore_index: int | None, mean: Sequence[float] | None, first_class: int = 0
) -> PixelLabels:
    if ignore_index is None:
        raise UserError("data.ignore_index=null: masks need a value for pixels that do not count, such as 255")
    if mean is not None and len(mean) != 3:
        raise UserError(f"data.mean={list(mean)} must have one value per channel of images with masks: three")
    red, green, blue = (round(255 * value) for value in mean or GRAY)
    return PixelLabels(
        num_classes=num_classes, ignore_index=ignore_index, first_class=first_class, fill=(red, green, blue)
    )


def segmentation_folders(
    root: str,
    num_classes: Annotated[int, CLASSES],
    ignore_index: Annotated[int | None, LABEL],
    size: Annotated[Sequence[int], SIDE],
    *,
    train: str = "train",
    test: str = "val",
    first_class: Annotated[int, Range(0, 1)] = 0,
    mean: Annotated[Sequence[float] | None, MEAN] = None,
    where: str = "set data.source.root, or DKL_DATA_DIR",
) -> tuple[SegmentationFiles, SegmentationFiles]:
    """List ``<root>/images/<split>/*`` and ``<root>/annotations/<split>/*.png`` of the splits ``train`` and ``test``.

    A mask has the name of its image, with the ending ``.png``. ``size`` (H, W) is the training crop, ``mean`` the color
    of padding in [0, 1]. With ``first_class`` 1, classes are numbered from 1 and 0 is ignored. ``where`` says in errors
    how to get the data. Raises UserError if a folder or a mask is missing, or if a mask and its image differ in size.
    """
    pixels = _pixels(num_classes, ignore_index, mean, first_class)
    splits = []
    for split in (train, test):
        images, annotations = Path(root) / "images" / split, Path(root) / "annotations" / split
        for folder in (images, annotations):
            if not folder.is_dir():
                raise UserError(f"there is no folder {folder}: {where}")
        found = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"{images} holds no images; expected {', '.join(IMAGE_SUFFIXES)} files there")
        names = [(path.name, f"{path.stem}.png") for path in found]
        if lost := [mask for _, mask in names if not (annotations / mask).is_file()]:
            raise UserError(f"{len(lost)} images in {images} have no mask; the first lacks {annotations / lost[0]}")
        splits.append(SegmentationFiles.from_folders(images, annotations, names, pixels=pixels, size=size))
    return splits[0], splits[1]


def digit_scenes(
    size: Annotated[Sequence[int], SIDE],
    num_classes: Annotated[int, CLASSES],
    ignore_index: Annotated[int | None, LABEL],
    *,
    train_size: Annotated[int, COUNT] = 32,
    test_size: Annotated[int, COUNT] = 16,
    digits_per_scene: Annotated[int, Range(0, 1000)] = 4,
) -> tuple[SegmentationArrays, SegmentationArrays]:
    """Draw scikit-learn's digits at double size on noise, with exact masks; identical at every call.

    Class 0 is the background and class d + 1 the digit d, as far as there are classes. The border of each digit's
    square is not marked, only its ink; ink of half strength is ignored.
    """
    height, width = size
    pixels, noise = _pixels(num_classes, ignore_index, None), torch.Generator().manual_seed(0)
    shown = min(num_classes - 1, 10)
    if shown < 1 or min(height, width) < 16:
        raise UserError(f"scenes of digits need 2 classes and 16x16 pixels, not {num_classes} and {height}x{width}")

    def split(count: int, training: bool) -> SegmentationArrays:
        source = digits()[0 if training else 1]
        known = (source.labels < shown).nonzero().squeeze(1)
        images = torch.randint(0, 96, (count, 3, height, width), generator=noise, dtype=torch.uint8)
        masks = torch.zeros(count, height, width, dtype=torch.int32)
        for image, mask in zip(images, masks, strict=True):
            for chosen in known[torch.randint(len(known), (digits_per_scene,), generator=noise)].tolist():
                ink = source.images[chosen, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)  # 16×16
                top, left = (int(torch.randint(side - 15, (1,), generator=noise)) for side in (height, width))
                place = (slice(top, top + 16), slice(left, left + 16))
                image[:, *place] = torch.maximum(image[:, *place], ink)
                mask[place][ink >= 96] = pixels.ignore_index
                mask[place][ink >= 160] = int(source.labels[chosen]) + 1
        return SegmentationArrays(images=images, masks=masks, pixels=pixels, size=(height, width))

    return split(train_size, True), split(test_size, False)
