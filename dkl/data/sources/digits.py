"""scikit-learn's handwritten digits."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dkl.data.images.in_memory import Images
from dkl.errors import needs_extra

_FILE = "datasets/data/digits.csv.gz"


def _rows() -> NDArray[np.float64]:
    """The gray levels, 0 to 16, and the label of each image, ``[1797, 65]``."""
    # Importing scikit-learn takes a second, so its file is read without that.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / _FILE).is_file():
            return np.loadtxt(Path(folder) / _FILE, delimiter=",")
    with needs_extra("digits"):
        from sklearn.datasets import load_digits  # for versions that keep the file elsewhere

    content = load_digits()
    return np.column_stack([content.data, content.target])


def digits() -> tuple[Images, Images]:
    """Load 1,797 images 1×8×8 in 10 classes from scikit-learn; every fifth image of each class is a test image.

    Raises UserError if scikit-learn is not installed.
    """
    rows = _rows()
    gray = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    images, labels = torch.from_numpy(gray), torch.from_numpy(rows[:, -1].astype(np.int64))
    testing = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        testing[(labels == label).nonzero().squeeze(1)[4::5]] = True
    return Images(images[~testing], labels[~testing]), Images(images[testing], labels[testing])
