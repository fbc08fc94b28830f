"""scikit-learn's digits are split as documented."""

import sys

import pytest
import torch
from sklearn.datasets import load_digits

from dkl.data import digits


def test_every_fifth_image_of_a_class_is_a_test_image_and_none_is_used_twice() -> None:
    content = load_digits()
    places: dict[bool, list[int]] = {False: [], True: []}
    seen = dict.fromkeys(range(10), 0)
    for place, label in enumerate(content.target.tolist()):
        seen[label] += 1
        places[seen[label] % 5 == 0].append(place)
    train, test = digits()
    assert (len(train), len(test)) == (1442, 355)
    for images, chosen in ((train, places[False]), (test, places[True])):
        gray = [[[round(level * 255 / 16) for level in row] for row in content.images[place]] for place in chosen]
        assert images.images.squeeze(1).tolist() == gray
        assert images.labels.tolist() == content.target[chosen].tolist()


def test_scikit_learn_gives_the_same_images_if_its_file_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read = digits()
    monkeypatch.setattr(sys.modules["dkl.data.sources"], "DIGITS_FILE", "elsewhere")
    for ours, theirs in zip(read, digits(), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
