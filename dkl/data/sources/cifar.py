"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

from pathlib import Path

import numpy as np

from dkl.data.images.in_memory import Images
from dkl.data.sources.folders import image_folder
from dkl.data.sources.npz import images_from_arrays, npz
from dkl.errors import UserError
from dkl.storage.fetch import fetch
from dkl.storage.files import locked

EXTRACTED = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}  # torchvision's folders


def _torchvision(name: str, root: Path, download: bool) -> tuple[Images, Images]:
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


def cifar(name: str, root: str, download: bool = True) -> tuple[Images, Images]:
    """Load ``cifar10`` or ``cifar100`` from ``root``, in the first of these forms that is there.

    In order: ``<root>/<name>/{train,test}.npz``; a torchvision folder (``cifar-10-batches-py`` or
    ``cifar-100-python``); image folders ``<root>/<name>/{train,test}/<class>/*.png``. Otherwise the archive is
    downloaded. Raises UserError on another name, on damaged files, and if nothing is there and ``download`` is false.
    """
    if name not in EXTRACTED:
        raise UserError(f"data.source.name must be cifar10 or cifar100, not {name!r}")
    base, extracted = Path(root), EXTRACTED[name]

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
        f"{name}/train/<class>/*.png and {name}/test/. Set DKL_DATA_DIR to its folder, or download it with "
        "data.source.download=true"
    )
