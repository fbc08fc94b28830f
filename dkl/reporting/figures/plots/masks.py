"""Figures of networks that label pixels: IoU per class as bars, and images beside truth, teacher and student."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dkl.errors import UserError
from dkl.reporting.figures.plots.style import BLUE, VERMILLION, canvas
from dkl.storage.files import damage

MAX_NAMED_CLASSES = 30
"""Up to this many classes are named; more are sorted by IoU."""

COLUMNS = {"images": "image", "truth": "truth", "teacher": "teacher", "student": "student"}
"""Arrays in a file of pictures, in the order of the columns, and their titles. ``teacher`` may be missing."""


@dataclass(frozen=True)
class MaskPictures:
    """The arrays of one file of ``dkl evaluate``, and ``about``: the fields of its record."""

    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def read_masks(path: Path) -> MaskPictures:
    """Read the pictures in ``path``. Raises UserError with the file's name if it is damaged."""
    if why := damage(path):
        raise UserError(f"{path} is damaged ({why}): delete it and evaluate again")
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return MaskPictures(json.loads(str(arrays.pop("about"))), arrays)


def iou_bars(iou: Mapping[str, float | None], mean: float, *, title: str) -> Figure:
    """Plot the IoU of each class in percent, and the mean as a line."""
    found = {name: 100 * value for name, value in iou.items() if value is not None}
    few = len(found) <= MAX_NAMED_CLASSES
    names = list(found) if few else sorted(found, key=found.__getitem__, reverse=True)
    figure, (axes,) = canvas(2.4)
    axes.bar(range(len(names)), [found[name] for name in names], 0.8 if few else 1.0, color=BLUE)
    axes.axhline(100 * mean, color=VERMILLION, lw=1, label=f"mean {100 * mean:.1f}")
    axes.set(title=title, ylabel="IoU (%)", ylim=(0, 100), xlabel="" if few else "classes, sorted")
    axes.set_xticks(range(len(names)) if few else [], names if few else [], rotation=60, ha="right")
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center")
    return figure


def side_by_side(pictures: MaskPictures, *, title: str) -> Figure:
    """Show a row per image: the image, the true mask, and the masks of teacher (if any) and student.

    Ignored pixels are black in all masks.
    """
    arrays, about = pictures.arrays, pictures.about
    shown = [name for name in COLUMNS if name in arrays]
    count = len(arrays["images"])
    figure, axes = canvas(0.4 + 0.75 * count, count, len(shown))
    palette = np.asarray(colormaps["nipy_spectral"](np.linspace(0.06, 1, about["num_classes"])))[:, :3]
    ignored = arrays["truth"] == about["ignore_index"]
    for place, ax in enumerate(axes):
        row, name = place // len(shown), shown[place % len(shown)]
        if name == "images":
            ax.imshow(arrays[name][row].transpose(1, 2, 0), interpolation="nearest")
        else:
            colors = palette[np.clip(arrays[name][row], 0, len(palette) - 1)]
            ax.imshow(np.where(ignored[row][..., None], 0, colors), interpolation="nearest")
        ax.set(xticks=[], yticks=[], title=COLUMNS[name] if row == 0 else "")
        ax.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=8)
    return figure
