"""CIFAR is found in each of its forms, in order, or downloaded; otherwise the error lists the expected files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dkl.data import cifar
from dkl.errors import UserError
from tests.data.common import (
    FOLDERS,
    Array,
    assert_holds,
    make_archive,
    make_arrays,
    make_torchvision_files,
    write_files,
)
from tests.data.download_server import Site, serve


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def write_npz(folder: Path) -> list[tuple[Array, Array]]:
    folder.mkdir(parents=True)
    splits = [make_arrays(8, 3), make_arrays(4, 4)]
    for name, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        np.savez(folder / f"{name}.npz", image=pixels, label=labels)
    return splits


def write_folders(folder: Path) -> list[tuple[Array, Array]]:
    splits = []
    for seed, split in enumerate(("train", "test")):
        pixels, _ = make_arrays(6, seed)
        labels = np.arange(6) // 2
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = folder / split / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        splits.append((pixels, labels))
    return splits


@pytest.mark.parametrize("form", ["npz", "torchvision", "folders"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_each_form_is_read(name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "torchvision":
        files, *expected = make_torchvision_files(name, monkeypatch)
        write_files(files, tmp_path)
    else:
        expected = {"npz": write_npz, "folders": write_folders}[form](tmp_path / name)
    for images, arrays in zip(cifar(name, str(tmp_path), download=False), expected, strict=True):
        assert_holds(images, arrays)


def test_the_forms_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = write_folders(tmp_path / "cifar10")
    assert_holds(cifar("cifar10", str(tmp_path))[0], folders[0])
    files, train, _ = make_torchvision_files("cifar10", monkeypatch)
    write_files(files, tmp_path)
    assert_holds(cifar("cifar10", str(tmp_path))[0], train)
    npz = write_npz(tmp_path / "extra")
    for split in ("train", "test"):
        (tmp_path / "extra" / f"{split}.npz").rename(tmp_path / "cifar10" / f"{split}.npz")
    assert_holds(cifar("cifar10", str(tmp_path))[0], npz[0])


def test_it_is_downloaded_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, *expected = make_torchvision_files("cifar10", monkeypatch)
    site.content = make_archive(files, monkeypatch, site.url)
    for _ in range(2):
        for images, arrays in zip(cifar("cifar10", str(tmp_path / "data")), expected, strict=True):
            assert_holds(images, arrays)
    assert site.ranges == [None]


@pytest.mark.parametrize("extracted", [0, 2])
def test_an_archive_on_disk_is_unpacked_without_a_network_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extracted: int
) -> None:
    files, train, _ = make_torchvision_files("cifar10", monkeypatch)
    (tmp_path / "tiny.tar.gz").write_bytes(make_archive(files, monkeypatch, "http://127.0.0.1:9/nowhere"))
    write_files(dict(list(files.items())[:extracted]), tmp_path)
    assert_holds(cifar("cifar10", str(tmp_path))[0], train)


def test_a_damaged_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, *_ = make_torchvision_files("cifar10", monkeypatch)
    write_files(files, tmp_path)
    damaged = tmp_path / FOLDERS["cifar10"] / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(UserError, match=FOLDERS["cifar10"]):
        cifar("cifar10", str(tmp_path), download=False)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_error_lists_the_expected_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        cifar(name, str(tmp_path), download=False)
    message = str(caught.value)
    for expected in (str(tmp_path), f"{name}/train.npz", "test.npz", FOLDERS[name], "<class>/*.png", "DKL_DATA_DIR"):
        assert expected in message
    assert list(tmp_path.iterdir()) == []


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cifar10 or cifar100"):
        cifar("cifar11", str(tmp_path))
