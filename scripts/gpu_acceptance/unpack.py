"""``python -m scripts.gpu_acceptance.unpack IMAGES DATA``: CIFAR-10 from the pictures that ``prepare`` has written."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def unpack(images: Path, data: Path) -> None:
    """Write ``cifar10/train.npz`` and ``test.npz`` to ``data``."""
    target = data / "cifar10"
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        labels = np.load(images / f"{split}-labels.npy")
        parts = []
        for path in sorted(images.glob(f"{split}-*.webp")):
            with Image.open(path) as opened:
                tile = np.asarray(opened.convert("RGB"))
            rows, columns = tile.shape[0] // SIDE, tile.shape[1] // SIDE
            parts.append(tile.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3))
        np.savez(target / f"{split}.npz", image=np.concatenate(parts)[: len(labels)], label=labels)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
