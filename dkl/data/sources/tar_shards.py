"""Images in tar shards as WebDataset writes them (``key.jpg``, ``key.cls``), indexed but not unpacked.

Only the tar headers are read at the start. An image is then read from its place in its shard, so that batches equal
those of the unpacked files, in any order and with any number of workers.
"""

import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from dkl.data.images.encoded import IMAGE_SUFFIXES
from dkl.data.images.sharded import ShardedImages
from dkl.errors import UserError
from dkl.validation import CLASSES, SIDE

Entry = tuple[str, int, int, int]  # key, offset and length of the image in bytes, label


def _read_label(text: bytes, place: str, num_classes: int) -> int:
    if not text.strip().isdigit() or int(text) >= num_classes:
        found = text[:20].decode(errors="replace")
        raise UserError(f"{place}: expected a class number below data.num_classes={num_classes}, not {found!r}")
    return int(text)


def _index(path: Path, num_classes: int) -> list[Entry]:
    """List the images of one shard, sorted by key. Raises UserError if one has no label or the shard is damaged."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                # A key ends at the first dot of the file name, as in WebDataset.
                folder, slash, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = folder + slash + stem
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member.offset_data, member.size
                elif suffix == "cls" and (text := archive.extractfile(member)):
                    labels[key] = _read_label(text.read(), f"{member.name} in {path}", num_classes)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as a shard, a plain .tar file: {error}; download it again") from None
    if odd := sorted(images.keys() ^ labels.keys()):
        raise UserError(
            f"{path} must hold an image and a .cls file for each key; {odd[0]} has only one of them; download it again"
        )
    if not images:
        raise UserError(f"{path} holds no images; expected <key>.jpg and <key>.cls files in it")
    return [(key, *images[key], labels[key]) for key in sorted(images)]


def _gather(root: str, pattern: str, num_classes: int, size: int) -> ShardedImages:
    """Index all shards ``<root>/<pattern>``."""
    paths = tuple(sorted(Path(root).glob(pattern)))
    if not paths:
        raise UserError(
            f"there are no shards {root}/{pattern}: expected .tar files as WebDataset writes them, with <key>.jpg and "
            "<key>.cls in them (timm/imagenet-1k-wds on Hugging Face has ImageNet's). Put them there, or set "
            "DKL_DATA_DIR, data.source.root, or the patterns data.source.train and data.source.val"
        )
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda path: _index(path, num_classes), paths))
    keys, starts, lengths, labels = zip(*(entry for shard in found for entry in shard), strict=True)
    return ShardedImages(
        paths,
        np.array([os.fsencode(key) for key in keys], np.bytes_),
        np.repeat(np.arange(len(paths)), [len(shard) for shard in found]),
        np.array([starts, lengths], np.int64).T,
        torch.tensor(labels, dtype=torch.int64),
        size,
    )


def tar_shards(
    root: str,
    num_classes: Annotated[int, CLASSES],
    size: Annotated[int, SIDE],
    train: str = "*train*.tar",
    val: str = "*val*.tar",
) -> tuple[ShardedImages, ShardedImages]:
    """Return training and validation images from the shards that match ``<root>/<train>`` and ``<root>/<val>``.

    Raises UserError if there are no shards, if one is damaged, or if a class has no training image.
    """
    training, testing = (_gather(root, pattern, num_classes, size) for pattern in (train, val))
    if empty := (training.per_class(num_classes) == 0).nonzero().flatten().tolist():
        raise UserError(
            f"{root}/{train} has no image of {len(empty)} of {num_classes} classes, such as {empty[0]}: download the "
            "other shards, or set data.num_classes"
        )
    return training, testing
