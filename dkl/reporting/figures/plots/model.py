"""Figures of one model: accuracy per class, and a strip of images with their perturbations."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dkl.reporting.figures.pictures import Pictures
from dkl.reporting.figures.plots.features import class_means
from dkl.reporting.figures.plots.style import BLUE, SKY, VERMILLION, canvas

MAX_NAMED_CLASSES = 20
"""Up to this many classes are shown by number; more are sorted by accuracy."""


def class_accuracies(pictures: Pictures, *, title: str) -> Figure:
    """Plot the accuracy per class in percent: natural images as wide bars, attacked ones as narrow bars in front.

    As in records, an image counts as robust only if its natural version is right as well.
    """
    figure, (axes,) = canvas(2.2)
    labels = pictures["labels"]
    natural_right = pictures["natural"] == labels
    both_right = natural_right & (pictures["adversarial"] == labels)
    natural, attacked = (100 * class_means(right, labels) for right in (natural_right, both_right))
    few, names = len(natural) <= MAX_NAMED_CLASSES, np.unique(labels)
    order, places = np.arange(len(natural)) if few else natural.argsort()[::-1], np.arange(len(natural))
    axes.bar(places, natural[order], 0.9 if few else 1.0, color=SKY, label=f"natural (mean {natural.mean():.1f})")
    axes.bar(places, attacked[order], 0.5, color=BLUE, label=f"{pictures.attack} (mean {attacked.mean():.1f})")
    axes.set(title=title, ylabel="accuracy (%)", ylim=(0, 100), xlabel="class" if few else "classes, sorted")
    axes.set_xticks(places if few else [], [str(name) for name in names] if few else [])
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _show(axes: Axes, image: np.ndarray, caption: str, wrong: bool) -> None:
    """Show ``image[C, H, W]`` in [0, 1] above its caption, in red if the model is wrong."""
    axes.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(caption, color=VERMILLION if wrong else "black", fontsize=7, labelpad=2)
    axes.spines[:].set_visible(False)


def image_strip(pictures: Pictures, *, title: str) -> Figure:
    """Show natural images, adversarial images and their differences (gray is zero), with the model's predictions."""
    natural, adversarial = pictures["natural_images"], pictures["adversarial_images"]
    delta = adversarial - natural
    # Perturbations are too small to see: the largest gets full contrast, and zero is middle gray.
    largest = np.abs(delta).max() or 1.0
    columns = len(natural)
    figure, axes = canvas(2.6, 3, columns)
    rows = zip(axes[:columns], axes[columns : 2 * columns], axes[2 * columns :], strict=True)
    for index, (top, middle, bottom) in enumerate(rows):
        label, *predictions = (
            int(pictures[key][index]) for key in ("image_labels", "image_natural", "image_adversarial")
        )
        _show(top, natural[index], f"{label} \N{RIGHTWARDS ARROW} {predictions[0]}", predictions[0] != label)
        _show(middle, adversarial[index], f"{label} \N{RIGHTWARDS ARROW} {predictions[1]}", predictions[1] != label)
        _show(bottom, 0.5 + delta[index] / (2 * largest), "", False)
    for row, text in enumerate(("natural", "adversarial", "difference")):
        axes[row * columns].set_ylabel(text)
    figure.suptitle(title, fontsize=8)
    figure.supxlabel(f"class \N{RIGHTWARDS ARROW} prediction; {pictures.attack}; differences magnified", fontsize=7)
    return figure
