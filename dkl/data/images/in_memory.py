"""Labeled images in memory."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.image_set import ImageSet
from dkl.errors import UserError


@dataclass(frozen=True)
class Images(ImageSet):
    """``images[N, C, H, W]``, uint8, and ``labels[N]``, int64. Raises UserError on another dtype or shape."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UserError(
                f"images must be uint8 (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}; "
                "scale them to 0 to 255 and convert them with .to(torch.uint8)"
            )
        if not len(self.images):
            raise UserError("the image files hold no images: check data.source")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"labels must be int64 ({len(self.images)},), not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])

    def tensor(self) -> Tensor:
        """The images themselves."""
        return self.images

    def lengths(self) -> NDArray[np.int64]:
        """Bytes of an image, for each."""
        return np.full(len(self), math.prod(self.shape))

    def content(self, index: int) -> bytes:
        """The pixels of image ``index``."""
        return self.images.numpy()[index].tobytes()

    def _select(self, mask: Tensor) -> "Images":
        return Images(self.images[mask], self.labels[mask])

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, pixels and labels, in hex; it does not depend on the file format."""
        content = hashlib.sha256(str(tuple(self.images.shape)).encode())
        content.update(self.images.contiguous().numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        return content.hexdigest()
