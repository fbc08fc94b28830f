"""Random pictures of one model, and figures drawn in the style of saved ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from dkl.reporting.figures.pictures import Pictures
from dkl.reporting.figures.style import STYLE


def make_pictures(number: int = 0, classes: int = 12, images: int = 60, channels: int = 3, **about: Any) -> Pictures:
    """Return random arrays of the documented shapes, seeded by ``number``; ``about`` replaces fields of the record."""
    rng = np.random.default_rng(number)
    labels = np.arange(images) % classes
    natural, adversarial = (np.where(rng.random(images) < p, labels, (labels + 1) % classes) for p in (0.7, 0.4))
    shown = rng.random((3, channels, 8, 8), dtype=np.float32)
    arrays = {
        "labels": labels,
        "natural": natural,
        "adversarial": adversarial,
        "natural_margin": rng.uniform(-1, 1, images),
        "adversarial_margin": rng.uniform(-1, 1, images),
        "point_labels": labels,
        "natural_points": rng.normal(size=(images, 2)),
        "adversarial_points": rng.normal(size=(images, 2)),
        "image_labels": labels[:3],
        "image_natural": natural[:3],
        "image_adversarial": adversarial[:3],
        "natural_images": shown,
        "adversarial_images": (shown + rng.uniform(-0.1, 0.1, shown.shape)).clip(0, 1),
    }
    fields: dict[str, Any] = {
        "id": f"cifar100-wrn34_10-IKL-AT-s0-{number:08x}",
        "method": "IKL-AT",
        "dataset": "cifar100",
        "budget": "mini",
        "seed": 0,
        "weights": "average at epoch 30",
        "training": {},
        "data_sha256": "d" * 64,
        "attacks": ["pgd-20"],
        "norm": "linf",
        "eps": 8 / 255,
        "eps_text": "8/255",
        "n": images,
    }
    return Pictures(fields | about, arrays)


def store(pictures: Pictures, results: Path) -> Path:
    """Write ``pictures`` to the folder of collected pictures."""
    path = results / "figures" / "data" / f"{pictures.about['id']}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, about=np.array(json.dumps(pictures.about)), **pictures.arrays)
    return path


def styled(draw: Callable[..., Figure], *args: Any, **kwargs: Any) -> Figure:
    """Return the figure that ``draw`` makes, laid out as when saved."""
    with rc_context(STYLE):
        figure = draw(*args, **kwargs)
        figure.draw_without_rendering()
    return figure
