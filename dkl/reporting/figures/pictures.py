"""Figures of one model, from arrays to drawing: features, class margins, accuracy per class, images and masks.

The arrays of attacked models are in ``<results>/figures/data/<id>.npz``, the masks of networks that label pixels in
``<results>/figures/masks/<id>.npz``.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dkl.config import row_identity
from dkl.errors import UserError
from dkl.manifests import Manifest, identities
from dkl.records import Record
from dkl.reporting.boards import budget_title
from dkl.reporting.figures import style
from dkl.reporting.grouping import created_at, group, slug, weights_kind
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

COLUMNS = {"images": "image", "truth": "truth", "teacher": "teacher", "student": "student"}
"""Arrays in a file of masks, in the order of the columns, and their titles. ``teacher`` may be missing."""

ARROW = "\N{RIGHTWARDS ARROW}"

MOST_CLASSES, MOST_NAMES = 20, 30
"""Up to this many classes are shown by number, or by name; more are sorted by accuracy or IoU."""


@dataclass(frozen=True)
class Pictures:
    """The arrays of one model by name, and ``about``: the fields of its record."""

    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    @property
    def attack(self) -> str:
        """The attack and its radius, such as ``PGD-20, 8/255``."""
        return f"{self.about['attacks'][0].upper()}, {self.about['eps_text']}"


def read(path: Path) -> Pictures:
    """Read the pictures in ``path``. Raises UserError with the file's name if it is broken."""
    try:
        if why := damage(path):
            raise ValueError(why)
        pictures = _load(path)
        if missing := (ARRAYS - pictures.arrays.keys()) | (ABOUT - set(pictures.about)):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return pictures
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a file of pictures ({error}): delete it and collect them again") from None


def _load(path: Path) -> Pictures:
    # Pickles can run code, so they are rejected.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return Pictures(json.loads(str(arrays.pop("about"))), arrays)


def features(
    manifests: Sequence[Manifest], pictures: Sequence[Pictures], problems: list[str]
) -> Iterator[style.Drawing]:
    """Figure 3 or one like it: the two rows that its manifest names, at one seed, on the same images."""

    def conditions(model: Pictures) -> tuple[str, ...]:
        """What makes margins and features comparable: seed, images, attack and kind of weights."""
        keys = ("budget", "seed", "n", "data_sha256", "norm", "eps", "attacks")
        return *(str(model.about[key]) for key in keys), model.about["weights"].partition(" ")[0]

    for manifest in manifests:
        if manifest.figure.get("draw") != "features":
            continue
        trained = [model for model in pictures if model.about["training"]]
        for budget, here in group(trained, lambda model: str(model.about["budget"])).items():
            try:
                hashes = identities(manifest, budget)
            except UserError as error:
                problems.append(f"{manifest.name}.yaml, budget {budget}: {error}")
                continue
            pairs = []
            for alike in group(here, conditions).values():
                known = {row_identity(model.about["training"]): model for model in alike}
                first, second = (known.get(hashes[manifest.figure[key]]) for key in ("first", "second"))
                if first and second:
                    pairs.append((first, second))
            if pairs:  # the pair with the most images, then the lowest seed
                first, second = min(pairs, key=lambda pair: (-pair[0].about["n"], pair[0].about["seed"]))
                rest = (style.seed_text(first.about["seed"]), budget_title(budget))
                for part, model in (("a", first), ("b", second)):
                    title = style.title_of(f"{model.about['method']}: features", *rest)
                    yield style.file_name(manifest, part, budget), partial(embedding, model, title=title)
                title = style.title_of(f"Class margins: {first.about['method']} minus {second.about['method']}", *rest)
                yield style.file_name(manifest, "c", budget), partial(margin_differences, first, second, title=title)


def embedding(pictures: Pictures, *, title: str) -> Figure:
    """Plot natural images as dots and adversarial ones as crosses, colored by class, whose number is beside them."""
    figure, (axes,) = style.canvas(3.1)
    labels = pictures["point_labels"]
    natural, adversarial = pictures["natural_points"], pictures["adversarial_points"]
    names: list[tuple[str, float, float]] = []
    for index, label in enumerate(np.unique(labels)):
        here = labels == label
        marks: dict[str, Any] = {"color": style.CYCLE[index % len(style.CYCLE)], "alpha": 0.75}
        axes.scatter(natural[here, 0], natural[here, 1], s=5, marker="o", linewidths=0, **marks)
        axes.scatter(adversarial[here, 0], adversarial[here, 1], s=7, marker="x", linewidths=0.5, **marks)
        names.append((str(label), *np.median(natural[here], axis=0)))
    axes.set(title=title, xticks=[], yticks=[])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_aspect("equal", adjustable="datalim")
    # Empty scatters give the legend gray markers instead of those of one class.
    axes.scatter([], [], s=12, c="0.35", marker="o", linewidths=0, label="natural")
    axes.scatter([], [], s=14, c="0.35", marker="x", linewidths=0.8, label=f"adversarial ({pictures.attack})")
    figure.legend(loc="outside lower center", ncols=2, handletextpad=0.2)
    outline = [withStroke(linewidth=2, foreground="white")]
    points = np.concatenate([natural, adversarial])
    style.place_labels(axes, names, points, reach=1.5, fontsize=7, fontweight="bold", path_effects=outline)
    return figure


def margin_differences(first: Pictures, second: Pictures, *, title: str) -> Figure:
    """Plot the mean margin per class, ``first`` minus ``second``: natural images as bars, adversarial ones as dots.

    Classes are sorted by the natural difference. Above zero, ``first`` is farther from its decision boundary.
    """
    figure, (axes,) = style.canvas(2.4)
    natural, adversarial = (
        class_means(first[key], first["labels"]) - class_means(second[key], second["labels"])
        for key in ("natural_margin", "adversarial_margin")
    )
    order, places = natural.argsort()[::-1], np.arange(len(natural))
    wins = [f"{int((larger > 0).sum())} of {len(larger)} larger" for larger in (natural, adversarial)]
    bars = axes.bar(places, natural[order], 0.85, color=style.BLUE, label=f"natural ({wins[0]})")
    dots: dict[str, Any] = {
        "color": style.ORANGE,
        "ms": 2.6,
        "mec": "black",
        "mew": 0.3,
        "label": f"adversarial ({wins[1]})",
    }
    points = axes.plot(places, adversarial[order], "o", **dots)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(title=title, xlabel="classes, sorted", ylabel="difference of mean margin", xticks=[])
    axes.margins(x=0.01)
    figure.legend(handles=[bars, *points], loc="outside lower center", ncols=1)
    return figure


def class_means(values: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.floating]:
    """Return the mean of ``values[N]`` per class in ``labels[N]``, in the order of class numbers."""
    return np.array([values[labels == label].mean() for label in np.unique(labels)])


def models(pictures: Sequence[Pictures]) -> Iterator[style.Drawing]:
    """Accuracy per class and a strip of images: one figure each per model."""
    for model in pictures:
        about = model.about
        title = style.title_of(
            about["method"], about["dataset"], style.seed_text(about["seed"]), budget_title(about["budget"])
        )
        for kind, draw in (("classes", class_accuracies), ("images", image_strip)):
            yield slug(f"{kind}-{about['budget']}-{about['id']}"), partial(draw, model, title=title)


def class_accuracies(pictures: Pictures, *, title: str) -> Figure:
    """Plot the accuracy per class in percent: natural images as wide bars, attacked ones as narrow bars in front.

    As in records, an image counts as robust only if its natural version is right as well.
    """
    figure, (axes,) = style.canvas(2.2)
    labels = pictures["labels"]
    natural_right = pictures["natural"] == labels
    both_right = natural_right & (pictures["adversarial"] == labels)
    natural, attacked = (100 * class_means(right, labels) for right in (natural_right, both_right))
    few, names = len(natural) <= MOST_CLASSES, np.unique(labels)
    order, places = np.arange(len(natural)) if few else natural.argsort()[::-1], np.arange(len(natural))
    axes.bar(places, natural[order], 0.9 if few else 1.0, color=style.SKY, label=f"natural (mean {natural.mean():.1f})")
    axes.bar(places, attacked[order], 0.5, color=style.BLUE, label=f"{pictures.attack} (mean {attacked.mean():.1f})")
    axes.set(title=title, ylabel="accuracy (%)", ylim=(0, 100), xlabel="class" if few else "classes, sorted")
    axes.set_xticks(places if few else [], [str(name) for name in names] if few else [])
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def image_strip(pictures: Pictures, *, title: str) -> Figure:
    """Show natural images, adversarial images and their differences (gray is zero).

    Predictions are below the images, wrong ones in red.
    """
    natural, adversarial = pictures["natural_images"], pictures["adversarial_images"]
    delta = adversarial - natural
    # Perturbations are too small to see: the largest gets full contrast, and zero is middle gray.
    largest = np.abs(delta).max() or 1.0
    rows = {
        "natural": (natural, pictures["image_natural"]),
        "adversarial": (adversarial, pictures["image_adversarial"]),
        "difference": (0.5 + delta / (2 * largest), None),
    }
    figure, axes = style.canvas(2.6, 3, len(natural))
    figure.patch.set_alpha(0)
    for row, (text, (images, predictions)) in enumerate(rows.items()):
        here = axes[row * len(images) : (row + 1) * len(images)]
        here[0].set_ylabel(text, color=style.GRAY)
        for index, (place, image) in enumerate(zip(here, images, strict=True)):
            place.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
            if predictions is not None:
                label, prediction = int(pictures["image_labels"][index]), int(predictions[index])
                color = style.GRAY if prediction == label else style.VERMILLION
                place.set_xlabel(f"{label} {ARROW} {prediction}", color=color, fontsize=7, labelpad=2)
    figure.suptitle(title, fontsize=8, color=style.GRAY)
    figure.supxlabel(
        f"class {ARROW} prediction; {pictures.attack}; differences magnified", fontsize=7, color=style.GRAY
    )
    return figure


def masks(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[style.Drawing]:
    """IoU per class, and images beside their masks: two figures per row of networks that label pixels."""
    dense = [record for record in records if record.segmented is not None]
    for own in group(dense, lambda record: (record.budget, record.row, weights_kind(record))).values():
        # The lowest seed represents its row, by its newest evaluation of the most images: more would fill the page.
        lowest = min(own, key=lambda each: -1 if each.seed is None else each.seed).seed
        record = max((each for each in own if each.seed == lowest), key=lambda each: (each.n, created_at(each)))
        assert record.segmented is not None
        title = style.title_of(record.method, record.dataset, style.seed_text(record.seed), budget_title(record.budget))
        bars = partial(iou_bars, record.segmented.iou, record.segmented.miou, title=title)
        yield slug(f"iou-{record.budget}-{record.id}"), bars
        path = folder / f"{record.id}.npz"
        if path.is_file():
            if why := damage(path):
                problems.append(f"{path} is damaged ({why}): delete it and evaluate again")
            else:
                yield slug(f"masks-{record.budget}-{record.id}"), partial(side_by_side, _load(path), title=title)


def iou_bars(iou: Mapping[str, float | None], mean: float, *, title: str) -> Figure:
    """Plot the IoU of each class in percent, and the mean as a line."""
    percents = {name: 100 * value for name, value in iou.items() if value is not None}
    few = len(percents) <= MOST_NAMES
    names = list(percents) if few else sorted(percents, key=percents.__getitem__, reverse=True)
    figure, (axes,) = style.canvas(2.4)
    axes.bar(range(len(names)), [percents[name] for name in names], 0.8 if few else 1.0, color=style.BLUE)
    axes.axhline(100 * mean, color=style.VERMILLION, lw=1, label=f"mean {100 * mean:.1f}")
    axes.set(title=title, ylabel="IoU (%)", ylim=(0, 100), xlabel="" if few else "classes, sorted")
    axes.set_xticks(range(len(names)) if few else [], names if few else [], rotation=60, ha="right")
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center")
    return figure


def side_by_side(pictures: Pictures, *, title: str) -> Figure:
    """Show a row per image: the image, the true mask, and the masks of teacher (if any) and student.

    Ignored pixels are black in all masks.
    """
    arrays, about = pictures.arrays, pictures.about
    shown = [name for name in COLUMNS if name in arrays]
    count = len(arrays["images"])
    figure, axes = style.canvas(0.4 + 0.75 * count, count, len(shown))
    figure.patch.set_alpha(0)
    palette = np.asarray(colormaps["nipy_spectral"](np.linspace(0.06, 1, about["num_classes"])))[:, :3]
    ignored = arrays["truth"] == about["ignore_index"]
    for place, ax in enumerate(axes):
        row, name = place // len(shown), shown[place % len(shown)]
        if name == "images":
            ax.imshow(arrays[name][row].transpose(1, 2, 0), interpolation="nearest")
        else:
            colors = palette[np.clip(arrays[name][row], 0, len(palette) - 1)]
            ax.imshow(np.where(ignored[row][..., None], 0, colors), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(COLUMNS[name] if row == 0 else "", color=style.GRAY)
        ax.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=8, color=style.GRAY)
    return figure
