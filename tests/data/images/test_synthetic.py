"""Mapped files give the pixels of their arrays without being read into memory; mistakes in them are named."""

import re
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dkl.data import SyntheticImages
from dkl.errors import UserError
from scripts import store_npz
from tests.data.common import Array, make_arrays

SHAPE = (3, 32, 32)


def write_parts(folder: Path, sizes: list[int], dtype: Any = np.int64) -> tuple[list[Path], Array, Array]:
    """Write files with ``sizes`` images. Returns their paths, and all pixels and labels in order."""
    parts = [make_arrays(size, number) for number, size in enumerate(sizes)]
    paths = [folder / f"part{number}.npz" for number in range(len(sizes))]
    for path, (pixels, labels) in zip(paths, parts, strict=True):
        np.savez(path, image=pixels, label=labels.astype(dtype))
    return paths, np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


def read(paths: list[Path], num_classes: int = 10) -> SyntheticImages:
    return SyntheticImages(paths, shape=SHAPE, num_classes=num_classes)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, ">i4"])
def test_images_of_all_files_are_read_in_any_order(tmp_path: Path, dtype: Any) -> None:
    paths, pixels, labels = write_parts(tmp_path, [7, 1, 12], dtype)
    synthetic = read(paths)
    assert len(synthetic) == 20
    for index in (
        torch.arange(20),
        torch.tensor([19, 0, 7, 7, 8, 3, 19]),
        torch.tensor([7]),
        torch.tensor([], dtype=int),
    ):
        images, got = synthetic.take(index)
        assert images.dtype == torch.uint8
        assert images.tolist() == pixels[index.numpy()].transpose(0, 3, 1, 2).tolist()
        assert got.dtype == torch.int64
        assert got.tolist() == labels[index.numpy()].tolist()


def test_labels_use_the_smallest_integer_type(tmp_path: Path) -> None:
    paths, _, _ = write_parts(tmp_path, [30])
    assert read(paths).labels.nbytes == 30
    assert read(paths, num_classes=1000).labels.nbytes == 60


def test_arrays_after_other_members_and_long_headers_are_found(tmp_path: Path) -> None:
    """Files of other programs: other members first, extra fields, the newer .npy header."""
    pixels, labels = make_arrays(6, 3)
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("notes.txt", "not an array" * 99)
        for name, array in (("label", labels), ("image", pixels)):
            info = zipfile.ZipInfo(f"{name}.npy")
            info.extra = b"\x99\x99\x04\x00abcd"
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(2, 0))
    images, got = read([tmp_path / "odd.npz"]).take(torch.arange(6))
    assert images.tolist() == pixels.transpose(0, 3, 1, 2).tolist()
    assert got.tolist() == labels.tolist()


def write_zeros(path: Path, count: int) -> None:
    """Write ``count`` black images of class 3 without holding them in memory."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape, dtype in (("image", (count, 32, 32, 3), "|u1"), ("label", (count,), "<i8")):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": dtype, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                block = bytes(3072) * 1000 if name == "image" else np.full(1000, 3).tobytes()
                for _ in range(count // 1000):
                    member.write(block)


def test_only_the_images_that_are_read_enter_memory(tmp_path: Path) -> None:
    path = tmp_path / "zeros.npz"
    write_zeros(path, 40_000)
    tracemalloc.start()
    try:
        images, labels = read([path]).take(torch.randint(40_000, (64,)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.shape == (64, *SHAPE)
    assert not images.any()
    assert labels.tolist() == [3] * 64
    assert path.stat().st_size > 120_000_000
    assert peak < 15_000_000  # mostly a few copies of the 1,024 images of the hash, 3 MB each


def test_missing_files_are_named_with_their_download_page(tmp_path: Path) -> None:
    paths, _, _ = write_parts(tmp_path, [2, 2, 2])
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(UserError, match=r"part1\.npz, .*part2\.npz.*huggingface\.co/datasets/P2333") as caught:
        read(paths)
    assert "part0" not in str(caught.value)


def test_the_command_that_a_compressed_file_asks_for_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = make_arrays(50, 8)
    path = tmp_path / "small.npz"
    np.savez_compressed(path, image=np.zeros_like(pixels), label=labels)
    with pytest.raises(UserError, match="compressed") as caught:
        read([path])
    command = re.search(r"python -m scripts\.store_npz (\S+ \S+)$", str(caught.value))
    assert command
    arguments = command[1].split()
    monkeypatch.setattr(sys, "argv", ["store_npz", *arguments])
    store_npz.main()
    target = Path(arguments[1])
    images, got = read([target]).take(torch.arange(50))
    assert not images.any()
    assert got.tolist() == labels.tolist()
    assert sorted(tmp_path.iterdir()) == sorted([path, target])


def fingerprint(folder: Path, pixels: Array, labels: Array, cuts: list[int], dtype: Any = np.int64) -> str:
    parts = zip(np.split(pixels, cuts), np.split(labels, cuts), strict=True)
    paths = [folder / f"{number}.npz" for number in range(len(cuts) + 1)]
    for path, (images, classes) in zip(paths, parts, strict=True):
        np.savez(path, image=images, label=classes.astype(dtype))
    return read(paths).sha256


def test_the_hash_identifies_the_content(tmp_path: Path) -> None:
    pixels, labels = make_arrays(30, 4)
    first = fingerprint(tmp_path, pixels, labels, [10])
    assert fingerprint(tmp_path, pixels, labels, [10], np.uint8) == first
    changed, relabeled = pixels.copy(), labels.copy()
    changed[17, 3, 3, 1] ^= 1
    relabeled[29] = (relabeled[29] + 1) % 10
    others = [
        fingerprint(tmp_path, changed, labels, [10]),
        fingerprint(tmp_path, pixels, relabeled, [10]),
        fingerprint(tmp_path, pixels, labels, [11]),
        fingerprint(tmp_path, pixels[:29], labels[:29], [10]),
        fingerprint(tmp_path, pixels[::-1], labels, [10]),
    ]
    assert len({first, *others}) == 6
