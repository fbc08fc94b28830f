"""Sliding windows predict what a network of single pixels predicts; counting resumes and can be shared."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkl.data import digit_scenes
from dkl.errors import UserError
from dkl.evaluation import segmentation
from dkl.evaluation.segmentation import Windows, count_test_pixels
from dkl.storage.files import load_arrays

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Class 1 where a pixel's red is above a half; knows nothing of its neighbors."""

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, :1] - 0.5
        return 20 * torch.cat([-red, red, torch.full_like(red, -9)], 1)


def _windows(**settings: object) -> Windows:
    fixed = {"size": (9, 12), "mirrored": True, "long_side": None, "fill": (0.0, 0.0, 0.0), "batch_size": 3}
    return Windows(**(fixed | settings))


@pytest.mark.parametrize("size", [(9, 12), (30, 41), (5, 40), (4, 5)])
@pytest.mark.parametrize("mirrored", [True, False])
def test_windows_change_nothing_for_a_network_of_single_pixels(size: tuple[int, int], mirrored: bool) -> None:
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    found = _windows(mirrored=mirrored).predict(Brightness(), image)
    assert torch.equal(found, (image[0] >= 128).long())


def test_windows_are_semsegs_and_cover_every_pixel() -> None:
    places = list(_windows(size=(473, 473)).places(512, 683))
    assert places == [(top, left) for top in (0, 39) for left in (0, 210)]  # stride ceil(473 · 2/3) = 316
    covered = np.zeros((30, 41), int)
    for top, left in _windows().places(30, 41):
        covered[top : top + 9, left : left + 12] += 1
    assert covered.min() > 0


def test_a_resized_image_has_predictions_of_its_own_size() -> None:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[:, :, 15:] = 255
    found = _windows(long_side=60).predict(Brightness(), image)
    assert torch.equal(found, (image[0] >= 128).long())


def test_counting_continues_with_the_next_image_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, test = digit_scenes((32, 40), 3, 255, test_size=5)
    whole = count_test_pixels(Brightness(), test, _windows(), device=CPU, folder=tmp_path / "whole")
    monkeypatch.setattr(segmentation, "SAVE_EVERY", 1)
    forwards = []

    class Stops(Brightness):
        def forward(self, images: Tensor) -> Tensor:
            forwards.append(len(images))
            if len(forwards) == 31:  # in the second image
                raise KeyboardInterrupt
            return super().forward(images)

    with pytest.raises(KeyboardInterrupt):
        count_test_pixels(Stops(), test, _windows(), device=CPU, folder=tmp_path / "killed")
    done = load_arrays(tmp_path / "killed" / "0.npz")
    assert int((~np.isnan(done["seconds"])).sum()) in range(1, 5)
    again = count_test_pixels(Brightness(), test, _windows(), device=CPU, folder=tmp_path / "killed")
    for one, other in zip(whole[:3], again[:3], strict=True):
        assert np.array_equal(one, other)
    assert whole.true.sum() < 5 * 32 * 40  # ignored pixels are in no count


def test_logits_that_are_not_finite_have_no_result() -> None:
    broken = nn.Conv2d(3, 2, 1)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(UserError, match="not finite"):
        _windows().predict(broken, torch.zeros(3, 9, 12, dtype=torch.uint8))
