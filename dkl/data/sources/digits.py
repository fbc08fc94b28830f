"""scikit-learn's handwritten digits."""

import numpy as np
import torch

from dkl.data.images.in_memory import Images
from dkl.errors import needs_extra


def digits() -> tuple[Images, Images]:
    """Load 1,797 images 1×8×8 in 10 classes from scikit-learn; every fifth image of each class is a test image.

    Raises UserError if scikit-learn is not installed.
    """
    with needs_extra("digits"):
        from sklearn.datasets import load_digits

    content = load_digits()
    gray = np.rint(content.images * (255 / 16)).astype(np.uint8)  # 17 levels, 0 to 16
    images, labels = torch.from_numpy(gray).unsqueeze(1), torch.from_numpy(content.target.astype(np.int64))
    testing = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        testing[(labels == label).nonzero().squeeze(1)[4::5]] = True
    return Images(images[~testing], labels[~testing]), Images(images[testing], labels[testing])
