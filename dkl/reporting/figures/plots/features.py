"""Figure 3: t-SNE of the features of natural and adversarial images, and the difference of two models' margins."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dkl.reporting.figures.pictures import Pictures
from dkl.reporting.figures.plots.label_placement import place_labels
from dkl.reporting.figures.plots.style import BLUE, CYCLE, ORANGE, canvas

Values = NDArray[np.floating]


def embedding(pictures: Pictures, *, title: str) -> Figure:
    """Plot natural images as dots and adversarial ones as crosses, colored by class, whose number is beside them."""
    figure, (axes,) = canvas(3.1)
    labels = pictures["point_labels"]
    natural, adversarial = pictures["natural_points"], pictures["adversarial_points"]
    names: list[tuple[str, float, float]] = []
    for index, label in enumerate(np.unique(labels)):
        here = labels == label
        style: dict[str, Any] = {"color": CYCLE[index % len(CYCLE)], "alpha": 0.75}
        axes.scatter(natural[here, 0], natural[here, 1], s=5, marker="o", linewidths=0, **style)
        axes.scatter(adversarial[here, 0], adversarial[here, 1], s=7, marker="x", linewidths=0.5, **style)
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
    place_labels(figure, axes, names, points, reach=1.5, fontsize=7, fontweight="bold", path_effects=outline)
    return figure


def class_means(values: Values, labels: NDArray[np.integer]) -> Values:
    """Return the mean of ``values[N]`` per class in ``labels[N]``, in the order of class numbers."""
    return np.array([values[labels == label].mean() for label in np.unique(labels)])


def margin_differences(first: Pictures, second: Pictures, *, title: str) -> Figure:
    """Plot the mean margin per class, ``first`` minus ``second``: natural images as bars, adversarial ones as dots.

    Classes are sorted by the natural difference. Above zero, ``first`` is farther from its decision boundary.
    """
    figure, (axes,) = canvas(2.4)
    natural, adversarial = (
        class_means(first[key], first["labels"]) - class_means(second[key], second["labels"])
        for key in ("natural_margin", "adversarial_margin")
    )
    order, places = natural.argsort()[::-1], np.arange(len(natural))
    wins = [f"{int((found > 0).sum())} of {len(found)} larger" for found in (natural, adversarial)]
    bars = axes.bar(places, natural[order], 0.85, color=BLUE, label=f"natural ({wins[0]})")
    dots: dict[str, Any] = {"color": ORANGE, "ms": 2.6, "mec": "black", "mew": 0.3, "label": f"adversarial ({wins[1]})"}
    points = axes.plot(places, adversarial[order], "o", **dots)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(title=title, xlabel="classes, sorted", ylabel="difference of mean margin", xticks=[])
    axes.margins(x=0.01)
    figure.legend(handles=[bars, *points], loc="outside lower center", ncols=1)
    return figure
