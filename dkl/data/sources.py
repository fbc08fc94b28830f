"""Sources of images in memory. A source is a function that returns a training and a test ``ImageSet``.

A config in ``configs/data`` names its source by ``source._target_``. A source of your own needs no entry here: write a
function with this return type in any importable module, and a YAML file that names it. ``dkl.data.folders`` has the
sources of image files.
"""

import importlib.util
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from dkl.data.folders import image_folder
from dkl.data.images import Images, ImageSet
from dkl.data.pixels import PixelLabels, SegmentationArrays
from dkl.errors import UserError, needs_extra
from dkl.storage.fetch import fetch
from dkl.storage.files import locked
from dkl.validation import CLASSES, COUNT, LABEL, SIDE, Range

EXTRACTED = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}  # torchvision's folders


def images_from_arrays(images: NDArray[np.generic], labels: NDArray[np.generic], source: str) -> Images:
    """Make ``Images`` of uint8 arrays (N, H, W, C), C 1 or 3, and integer labels (N,).

    Raises UserError on another dtype or shape; ``source`` names the arrays in the message.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{source}: image must be uint8 (N, H, W, 3) or (N, H, W, 1), not {images.dtype} {images.shape}"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{source}: label must be {len(images)} integers, not {labels.dtype} {labels.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)))


def npz(train: str, test: str) -> tuple[Images, Images]:
    """Read two ``.npz`` files with ``image`` uint8 (N, H, W, C) and ``label`` (N,).

    Raises UserError if a file is missing, damaged, or has other arrays.
    """
    return _read_npz(Path(train)), _read_npz(Path(test))


def _read_npz(path: Path) -> Images:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            if missing := {"image", "label"} - set(content.files):
                raise UserError(
                    f"{path} has no array named {' and '.join(sorted(missing))}, but {content.files}; name them image "
                    "and label"
                )
            return images_from_arrays(content["image"], content["label"], str(path))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: set paths.data, or data.source.train and data.source.test") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as an .npz of plain arrays: {error}; write it again with numpy.savez"
        ) from None


def cifar(name: str, root: str, download: bool = True) -> tuple[Images, Images]:
    """Load ``cifar10`` or ``cifar100`` (Krizhevsky 2009) from ``root``, in the first of these forms that is there.

    In order: ``<root>/<name>/{train,test}.npz``; a torchvision folder (``cifar-10-batches-py`` or
    ``cifar-100-python``); image folders ``<root>/<name>/{train,test}/<class>/*.png``. Otherwise the archive is
    downloaded. Raises UserError on another name, on damaged files, and if nothing is there and ``download`` is false.
    """
    if name not in EXTRACTED:
        raise UserError(f"data.source.name must be cifar10 or cifar100, not {name!r}")
    base, extracted = Path(root), EXTRACTED[name]
    folders = [base / name / split for split in ("train", "test")]
    files = [folder.with_suffix(".npz") for folder in folders]
    if all(path.is_file() for path in files):
        return npz(*map(str, files))
    if (base / extracted).is_dir():
        return _torchvision_cifar(name, base, download)
    if all(path.is_dir() for path in folders):
        return image_folder(*map(str, folders))
    if download:
        return _torchvision_cifar(name, base, download)
    raise UserError(
        f"{name} is not under {base}: expected {name}/train.npz and test.npz, {extracted}/, or folders "
        f"{name}/train/<class>/*.png and {name}/test/. Set DKL_DATA_DIR to its folder, or download it with "
        "data.source.download=true"
    )


def _torchvision_cifar(name: str, root: Path, download: bool) -> tuple[Images, Images]:
    """Load CIFAR through torchvision. The archive is fetched by ``fetch``, which resumes a broken download."""
    import torchvision

    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    try:
        splits = [dataset(str(root), train=train) for train in (True, False)]
    except RuntimeError:  # files are missing or have another hash, such as after an interrupted extraction
        if not download:
            damaged = root / dataset.base_folder
            raise UserError(
                f"{damaged} is incomplete or damaged; add data.source.download=true to download it again"
            ) from None
        fetch(dataset.url, root / dataset.filename, dataset.tgz_md5, "md5")
        with locked(root / f".{name}.lock", wait=True):  # one process unpacks, the others wait
            splits = [dataset(str(root), train=train, download=True) for train in (True, False)]
    train, test = (images_from_arrays(split.data, np.asarray(split.targets), f"{root}/{name}") for split in splits)
    return train, test


DIGITS_FILE = "datasets/data/digits.csv.gz"  # in scikit-learn's package


def digits() -> tuple[Images, Images]:
    """Load 1,797 images 1×8×8 in 10 classes from scikit-learn; every fifth image of each class is a test image.

    Raises UserError if scikit-learn is not installed.
    """
    rows = _digit_rows()
    gray = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    images, labels = torch.from_numpy(gray), torch.from_numpy(rows[:, -1].astype(np.int64))
    testing = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        testing[(labels == label).nonzero().squeeze(1)[4::5]] = True
    return Images(images[~testing], labels[~testing]), Images(images[testing], labels[testing])


def _digit_rows() -> NDArray[np.float64]:
    """The gray levels, 0 to 16, and the label of each image, ``[1797, 65]``."""
    # Importing scikit-learn takes a second, so its file is read without that.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / DIGITS_FILE).is_file():
            return np.loadtxt(Path(folder) / DIGITS_FILE, delimiter=",")
    with needs_extra("digits"):
        from sklearn.datasets import load_digits  # for versions that keep the file elsewhere

    content = load_digits()
    return np.column_stack([content.data, content.target])


def generated(
    shape: Annotated[Sequence[int], SIDE],
    num_classes: Annotated[int, CLASSES],
    ignore_index: Annotated[int | None, LABEL] = None,
    *,
    train_size: Annotated[int, COUNT] = 32,
    test_size: Annotated[int, COUNT] = 16,
) -> tuple[ImageSet, ImageSet]:
    """Make artificial images of ``shape`` (C, H, W), for budget smoke: with an ``ignore_index`` they have masks."""
    if ignore_index is None:
        return noisy_patterns(shape, num_classes, train_size, test_size)
    return digit_scenes(shape[1:], num_classes, ignore_index, train_size=train_size, test_size=test_size)


CLASSES_SHOWN = 4


def noisy_patterns(
    shape: Annotated[Sequence[int], SIDE],
    num_classes: Annotated[int, CLASSES],
    train_size: Annotated[int, COUNT] = 32,
    test_size: Annotated[int, COUNT] = 16,
) -> tuple[Images, Images]:
    """Make uint8 images of ``shape`` (C, H, W), each a pattern of its class plus noise; identical at every call.

    Labels cycle through the first ``CLASSES_SHOWN`` classes only, so that a model soon classifies some images
    correctly and attacks have something to attack.
    """
    noise, shown = torch.Generator().manual_seed(0), min(num_classes, CLASSES_SHOWN)
    patterns = torch.randint(64, 192, (shown, *shape), generator=noise)

    def split(size: int) -> Images:
        labels = torch.arange(size) % shown
        images = patterns[labels] + torch.randint(-64, 64, (size, *shape), generator=noise)
        return Images(images.to(torch.uint8), labels)

    return split(train_size), split(test_size)


def digit_scenes(
    size: Annotated[Sequence[int], SIDE],
    num_classes: Annotated[int, CLASSES],
    ignore_index: Annotated[int | None, LABEL],
    *,
    train_size: Annotated[int, COUNT] = 32,
    test_size: Annotated[int, COUNT] = 16,
    digits_per_scene: Annotated[int, Range(0, 1000)] = 4,
) -> tuple[SegmentationArrays, SegmentationArrays]:
    """Draw scikit-learn's digits at double size on noise, with exact masks; identical at every call.

    Class 0 is the background and class d + 1 the digit d, as far as there are classes. The border of each digit's
    square is not marked, only its ink; ink of half strength is ignored.
    """
    height, width = size
    pixels, noise = PixelLabels.of_source(num_classes, ignore_index), torch.Generator().manual_seed(0)
    shown = min(num_classes - 1, 10)
    if shown < 1 or min(height, width) < 16:
        raise UserError(f"scenes of digits need 2 classes and 16x16 pixels, not {num_classes} and {height}x{width}")

    def split(count: int, training: bool) -> SegmentationArrays:
        source = digits()[0 if training else 1]
        known = (source.labels < shown).nonzero().squeeze(1)
        images = torch.randint(0, 96, (count, 3, height, width), generator=noise, dtype=torch.uint8)
        masks = torch.zeros(count, height, width, dtype=torch.int32)
        for image, mask in zip(images, masks, strict=True):
            for chosen in known[torch.randint(len(known), (digits_per_scene,), generator=noise)].tolist():
                ink = source.images[chosen, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)  # 16×16
                top, left = (int(torch.randint(side - 15, (1,), generator=noise)) for side in (height, width))
                place = (slice(top, top + 16), slice(left, left + 16))
                image[:, *place] = torch.maximum(image[:, *place], ink)
                mask[place][ink >= 96] = pixels.ignore_index
                mask[place][ink >= 160] = int(source.labels[chosen]) + 1
        return SegmentationArrays(images=images, masks=masks, pixels=pixels, size=(height, width))

    return split(train_size, True), split(test_size, False)
