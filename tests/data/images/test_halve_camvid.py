"""Images of the SegNet tutorial become a dataset that ``data=camvid`` reads."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dkl.data import segmentation_folders
from scripts.halve_camvid import SPLITS, main


def test_images_and_masks_are_halved_and_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "CamVid", tmp_path / "camvid"
    mask = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(4, 0).repeat(4, 1)  # four fields of 4×4 pixels
    for split in SPLITS:
        for folder, pixels in ((split, np.full((8, 8, 3), 100, np.uint8)), (f"{split}annot", mask)):
            (source / folder).mkdir(parents=True)
            Image.fromarray(pixels).save(source / folder / "street.png")
    monkeypatch.setattr(sys, "argv", ["halve_camvid", str(source), str(target)])
    main()
    train, test = segmentation_folders(str(target), 11, 11, (4, 4), train="train", test="test")
    assert (len(train), len(test)) == (1, 1)
    with Image.open(target / "annotations" / "val" / "street.png") as half:
        assert np.array_equal(np.asarray(half), mask[::2, ::2])


def test_another_folder_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["halve_camvid", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="IN must be the folder CamVid of github"):
        main()
