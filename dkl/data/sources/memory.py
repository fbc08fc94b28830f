"""Where images come from: each source returns a training and a test split, or says what is missing."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.memory import Images
from dkl.data.sources.download import fetch
from dkl.errors import UserError, needs_extra
from dkl.files import locked

Splits = tuple[Images, Images]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def digits() -> Splits:
    """scikit-learn's digits: 1,797 images 1×8×8 in 10 classes, from its wheel; every fifth of a class is for tests."""
    with needs_extra("digits"):
        from sklearn.datasets import load_digits

    content = load_digits()
    grey = np.rint(content.images * (255 / 16)).astype(np.uint8)  # 17 levels, 0 to 16
    images, labels = torch.from_numpy(grey).unsqueeze(1), torch.from_numpy(content.target.astype(np.int64))
    testing = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        testing[(labels == label).nonzero().squeeze(1)[4::5]] = True
    return Images(images[~testing], labels[~testing]), Images(images[testing], labels[testing])


def _from_arrays(images: NDArray[np.generic], labels: NDArray[np.generic], where: str) -> Images:
    """``Images`` of uint8 arrays (N, H, W, C) and integer labels (N,); ``where`` names them in errors."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"{where}: image must be uint8 (N, H, W, 3) or (N, H, W, 1), not {images.dtype} {images.shape}")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where}: label must be {len(images)} integers, not {labels.dtype} {labels.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)))


def _read_npz(path: Path) -> Images:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            if missing := {"image", "label"} - set(content.files):
                raise UserError(f"{path} has no array named {' and '.join(sorted(missing))}; it has {content.files}")
            return _from_arrays(content["image"], content["label"], str(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as an .npz of plain arrays: {error}") from None


def npz(train: str, test: str) -> Splits:
    """Two ``.npz`` files with ``image`` uint8 (N, H, W, C) and ``label`` (N,)."""
    return _read_npz(Path(train)), _read_npz(Path(test))


def _read_folder(folder: Path, classes: list[str]) -> Images:
    """Images ``<folder>/<class>/*`` of one size, labelled by the place of the class in ``classes``."""
    from PIL import Image

    pixels: list[Tensor] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        for path in paths:
            try:
                with Image.open(path) as image:
                    pixels.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
            except OSError as error:
                raise UserError(f"{path} cannot be decoded: {error}") from None
            if pixels[-1].shape != pixels[0].shape:
                raise UserError(
                    f"{path} is {tuple(pixels[-1].shape)}, others are {tuple(pixels[0].shape)}: resize first"
                )
        labels += [label] * len(paths)
    if not pixels:
        raise UserError(f"{folder} holds no images; expected {folder}/<class>/*.png")
    return Images(torch.stack(pixels), torch.tensor(labels))


def image_folder(train: str, test: str) -> Splits:
    """Two folders ``<class>/*.png`` of images of one size, read whole; classes are numbered by sorted folder name."""
    for folder in (Path(train), Path(test)):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; expected {folder}/<class>/*.png")
    classes = sorted(p.name for p in Path(train).iterdir() if p.is_dir())
    if strangers := sorted(p.name for p in Path(test).iterdir() if p.is_dir() and p.name not in classes):
        raise UserError(f"{test} has classes that {train} lacks: {', '.join(strangers[:5])}")
    return _read_folder(Path(train), classes), _read_folder(Path(test), classes)


def _torchvision(name: str, root: Path, download: bool) -> Splits:
    """CIFAR through torchvision; the archive is fetched so that a broken download goes on where it stopped."""
    import torchvision

    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    try:
        splits = [dataset(str(root), train=train) for train in (True, False)]
    except RuntimeError:  # files missing or with another hash, such as after a killed unpacking
        if not download:
            damaged = root / dataset.base_folder
            raise UserError(f"{damaged} is incomplete or damaged; add data.source.download=true to mend it") from None
        with locked(root / f".{name}.lock", wait=True):  # of several processes one fetches and unpacks
            fetch(dataset.url, root / dataset.filename, dataset.tgz_md5, "md5")
            splits = [dataset(str(root), train=train, download=True) for train in (True, False)]
    train, test = (_from_arrays(split.data, np.asarray(split.targets), f"{root}/{name}") for split in splits)
    return train, test


def cifar(name: str, root: str, download: bool = True) -> Splits:
    """CIFAR-10 or CIFAR-100 from ``root``, in the first form found there, else downloaded through torchvision.

    Looked for in order: ``<root>/<name>/{train,test}.npz``; a torchvision folder (``cifar-10-batches-py`` or
    ``cifar-100-python``); image folders ``<root>/<name>/{train,test}/<class>/*.png``.
    """
    if name not in ("cifar10", "cifar100"):
        raise UserError(f"data.source.name must be cifar10 or cifar100, not {name!r}")
    base = Path(root)
    extracted = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]

    def both(suffix: str) -> list[str]:
        return [str(base / name / f"{split}{suffix}") for split in ("train", "test")]

    if all(Path(path).is_file() for path in both(".npz")):
        return npz(*both(".npz"))
    if (base / extracted).is_dir():
        return _torchvision(name, base, download)
    if all(Path(path).is_dir() for path in both("")):
        return image_folder(*both(""))
    if download:
        return _torchvision(name, base, download=True)
    raise UserError(
        f"{name} is not under {base}: expected {name}/train.npz and test.npz, {extracted}/, or folders "
        f"{name}/train/<class>/*.png and {name}/test/. Set DKL_DATA_DIR to where it is, or let it be fetched "
        "with data.source.download=true"
    )
