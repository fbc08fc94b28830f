"""Images in tar shards as WebDataset writes them (``key.jpg``, ``key.cls``), indexed and not unpacked.

Only the headers are read at the start; an image is then read from its place in its shard, so that batches are the same
as those of the unpacked files, in any order and with any number of workers.
"""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.encoded import EncodedImages
from dkl.data.sources.memory import IMAGE_SUFFIXES
from dkl.errors import UserError

Entry = tuple[str, int, int, int]  # key, place and bytes of the image, label


@dataclass(frozen=True, eq=False)
class Shards(EncodedImages):
    """Image i is ``spans[i, 1]`` bytes from byte ``spans[i, 0]`` of file ``paths[shard[i]]``; ``labels[N]``, int64."""

    paths: tuple[Path, ...]
    names: NDArray[np.bytes_]
    shard: NDArray[np.int64]
    spans: NDArray[np.int64]
    labels: Tensor
    size: int

    def open(self, index: int) -> IO[bytes]:
        """Image ``index``, encoded."""
        start, length = self.spans[index].tolist()
        with self.paths[self.shard[index]].open("rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(length))

    def where(self, index: int) -> str:
        """Its key and its shard."""
        return f"{os.fsdecode(self.names[index])} in {self.paths[self.shard[index]]}"

    def _part(self, mask: Tensor) -> "Shards":
        kept = mask.numpy()
        arrays = {name: getattr(self, name)[kept] for name in ("names", "shard", "spans")}
        return replace(self, **arrays, labels=self.labels[mask])

    def _bytes(self) -> NDArray[np.int64]:
        return np.ascontiguousarray(self.spans[:, 1])


def _read_label(text: bytes, where: str, num_classes: int) -> int:
    if not text.strip().isdigit() or int(text) >= num_classes:
        said = text[:20].decode(errors="replace")
        raise UserError(f"{where}: expected a class number below data.num_classes={num_classes}, not {said!r}")
    return int(text)


def _index(path: Path, num_classes: int) -> list[Entry]:
    """The images of one shard, sorted by key. Raises UserError on an image without a label and on a damaged shard."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = folder + slash + stem
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member.offset_data, member.size
                elif suffix == "cls" and (text := archive.extractfile(member)):
                    labels[key] = _read_label(text.read(), f"{member.name} in {path}", num_classes)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as a shard, a plain .tar file: {error}; fetch it anew") from None
    if odd := sorted(images.keys() ^ labels.keys()):
        raise UserError(f"{path} must hold an image and a .cls file of each key; {odd[0]} has only one of them")
    if not images:
        raise UserError(f"{path} holds no images; expected <key>.jpg and <key>.cls files in it")
    return [(key, *images[key], labels[key]) for key in sorted(images)]


def _gather(root: str, pattern: str, num_classes: int, size: int) -> Shards:
    paths = tuple(sorted(Path(root).glob(pattern)))
    if not paths:
        raise UserError(
            f"there are no shards {root}/{pattern}: expected .tar files as WebDataset writes them, with <key>.jpg and "
            "<key>.cls in them (timm/imagenet-1k-wds on Hugging Face has ImageNet's). Put them there, or set "
            "DKL_DATA_DIR, data.source.root, or data.source.train and data.source.val to what they are called"
        )
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda path: _index(path, num_classes), paths))
    keys, starts, lengths, labels = zip(*(entry for shard in found for entry in shard), strict=True)
    return Shards(
        paths,
        np.array([os.fsencode(key) for key in keys], np.bytes_),
        np.repeat(np.arange(len(paths)), [len(shard) for shard in found]),
        np.array([starts, lengths], np.int64).T,
        torch.tensor(labels, dtype=torch.int64),
        size,
    )


def shards(
    root: str, num_classes: int, size: int, train: str = "*train*.tar", val: str = "*val*.tar"
) -> tuple[Shards, Shards]:
    """Training and validation images from the shards ``<root>/<train>`` and ``<root>/<val>``, two patterns.

    Raises UserError where there are none, where one is damaged, or where a class has no training image.
    """
    training, testing = (_gather(root, pattern, num_classes, size) for pattern in (train, val))
    if empty := (training.per_class(num_classes) == 0).nonzero().flatten().tolist():
        raise UserError(
            f"{root}/{train} has no image of {len(empty)} of {num_classes} classes, such as {empty[0]}: fetch the "
            "other shards, or set data.num_classes"
        )
    return training, testing
