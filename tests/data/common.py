"""Small image sets, and files and archives for sources to read."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray

from dkl.data import Images

Array = NDArray[Any]

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def make_images(count: int, shape: tuple[int, int, int] = (3, 8, 8), classes: int = 4) -> Images:
    """Random pixels; labels cycle through the classes."""
    return Images(torch.randint(256, (count, *shape), dtype=torch.uint8), torch.arange(count) % classes)


def make_arrays(count: int, seed: int, classes: int = 10, size: int = 32) -> tuple[Array, Array]:
    """Random ``image[count, size, size, 3]``, uint8, and ``label[count]``."""
    draw = np.random.default_rng(seed)
    return draw.integers(256, size=(count, size, size, 3), dtype=np.uint8), draw.integers(classes, size=count)


def assert_holds(images: Images, arrays: tuple[Array, Array]) -> None:
    """Assert that ``images`` equal ``arrays``, pixels (N, H, W, C) and labels, in order."""
    pixels, labels = arrays
    assert images.images.permute(0, 2, 3, 1).tolist() == pixels.tolist()
    assert images.labels.tolist() == labels.tolist()


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def make_torchvision_files(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], Any, Any]:
    """Make the files of the published archive with few images, and patch torchvision to expect their hashes.

    Returns the content of the files by path, and the arrays of training and test images.
    """
    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    key = {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    train, test = make_arrays(20, 1), make_arrays(6, 2)
    files: dict[str, bytes] = {}

    def dump(file: str, content: dict[str, Any]) -> list[str]:
        files[f"{FOLDERS[name]}/{file}"] = pickle.dumps(content, protocol=2)
        return [file, _md5(files[f"{FOLDERS[name]}/{file}"])]

    def batch(file: str, pixels: Array, labels: Array) -> list[str]:
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)  # red, green, blue planes, as published
        return dump(file, {"data": rows, key: labels.tolist()})

    parts = 5 if name == "cifar10" else 1
    names = [f"data_batch_{part + 1}" for part in range(parts)] if parts > 1 else ["train"]
    per_part = len(train[0]) // parts
    slices = [slice(part * per_part, (part + 1) * per_part) for part in range(parts)]
    train_list = [batch(file, train[0][s], train[1][s]) for file, s in zip(names, slices, strict=True)]
    test_list = [batch("test_batch" if parts > 1 else "test", *test)]
    file, classes = ("batches.meta", "label_names") if parts > 1 else ("meta", "fine_label_names")
    _, digest = dump(file, {classes: [f"class {label}" for label in range(10)]})
    monkeypatch.setattr(dataset, "train_list", train_list)
    monkeypatch.setattr(dataset, "test_list", test_list)
    monkeypatch.setattr(dataset, "meta", {"filename": file, "key": classes, "md5": digest})
    return files, train, test


def write_files(files: dict[str, bytes], root: Path) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def make_archive(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, url: str) -> bytes:
    """Pack ``files`` into a ``.tar.gz``, and patch torchvision's CIFAR10 to expect it at ``url``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "filename", "tiny.tar.gz")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", _md5(buffer.getvalue()))
    return buffer.getvalue()
