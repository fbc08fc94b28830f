"""The arrays that figures of one model need, read from ``<results>/figures/data/<id>.npz``."""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkl.errors import UserError
from dkl.storage.files import damage

ARRAYS = frozenset(
    (
        *("labels", "natural", "adversarial", "natural_margin", "adversarial_margin"),
        *("point_labels", "natural_points", "adversarial_points"),
        *("image_labels", "image_natural", "image_adversarial", "natural_images", "adversarial_images"),
    )
)
"""Arrays in a file, beside ``about``."""

ABOUT = frozenset(
    (
        *("id", "method", "dataset", "budget", "seed", "weights", "training", "data_sha256"),
        *("attacks", "norm", "eps", "eps_text", "n"),
    )
)
"""Keys that ``about`` must have."""


@dataclass(frozen=True)
class Pictures:
    """The arrays of one model by name, and ``about``: the fields of its record."""

    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    @property
    def budget(self) -> str:
        """The budget of the run."""
        return str(self.about["budget"])

    @property
    def attack(self) -> str:
        """The attack and its radius, such as ``PGD-20, 8/255``."""
        return f"{self.about['attacks'][0].upper()}, {self.about['eps_text']}"

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What two models must share to be compared: seed, images, attack and kind of weights."""
        about = self.about
        keys = ("budget", "seed", "n", "data_sha256", "norm", "eps", "attacks")
        return *(str(about[key]) for key in keys), about["weights"].partition(" ")[0]


def read(path: Path) -> Pictures:
    """Read the pictures in ``path``. Raises UserError with the file's name if it is broken."""
    try:
        if why := damage(path):
            raise ValueError(why)
        # Pickles can run code, so they are rejected.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about = json.loads(str(arrays.pop("about")))
        if missing := (ARRAYS - arrays.keys()) | (ABOUT - set(about)):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return Pictures(about, arrays)
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a file of pictures ({error}): delete it and collect them again") from None


def read_all(folder: Path) -> tuple[list[Pictures], list[str]]:
    """Read all pictures in ``folder``, sorted by name. Returns them and one message per broken file."""
    found: list[Pictures] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.npz")):
        try:
            found.append(read(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems
