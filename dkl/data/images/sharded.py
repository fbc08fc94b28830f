"""Labeled images inside tar shards, read from their place without unpacking the shards."""

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.encoded import EncodedImages
from dkl.data.transforms.pil_image import USUAL_CENTER, Center


@dataclass(frozen=True, eq=False)
class ShardedImages(EncodedImages):
    """Image i is ``spans[i, 1]`` bytes at offset ``spans[i, 0]`` of file ``paths[shard[i]]``; ``labels[N]``, int64."""

    paths: tuple[Path, ...]
    names: NDArray[np.bytes_]
    shard: NDArray[np.int64]
    spans: NDArray[np.int64]
    labels: Tensor
    size: int
    center: Center = USUAL_CENTER

    def open(self, index: int) -> IO[bytes]:
        """Read the encoded image ``index``."""
        start, length = self.spans[index].tolist()
        with self.paths[self.shard[index]].open("rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(length))

    def location(self, index: int) -> str:
        """Key and shard of image ``index``."""
        return f"{os.fsdecode(self.names[index])} in {self.paths[self.shard[index]]}"

    def _select(self, mask: Tensor) -> "ShardedImages":
        kept = mask.numpy()
        arrays = {name: getattr(self, name)[kept] for name in ("names", "shard", "spans")}
        return replace(self, **arrays, labels=self.labels[mask])

    def lengths(self) -> NDArray[np.int64]:
        """Length of each encoded image in bytes."""
        return np.ascontiguousarray(self.spans[:, 1])
