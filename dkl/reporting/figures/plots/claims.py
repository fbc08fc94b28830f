"""A forest plot of claims: one line per claim, with the paired difference and its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dkl.reporting.figures.plots.style import BLACK, BLUE, SKY, VERMILLION, WIDE, canvas, set_ticks

LOOKS = {
    "agrees": (BLUE, "o", BLUE),
    "disagrees": (VERMILLION, "X", VERMILLION),
    "not visible at this size": (BLACK, "s", BLACK),
    "one seed only": (SKY, "o", "white"),
}
"""Color, marker and face of the marker by verdict."""


@dataclass(frozen=True)
class Tested:
    """A claim of an ``experiment``: its difference in percentage points, the ends of its interval, and the verdict.

    ``within`` is the largest difference that a claim of equality allows, in percentage points.
    """

    claim: str
    experiment: str
    difference: float
    low: float
    high: float
    verdict: str
    within: float | None = None


def forest(tested: Sequence[Tested], *, title: str) -> Figure:
    """Plot one line per claim, the first on top, with a heading per experiment.

    The claimed side is the right one; for a claim of equality it is the gray bar around 0.
    """
    lines: list[tuple[str, Tested | None]] = []
    for experiment, own in groupby(tested, lambda one: one.experiment):
        lines += [(experiment, None), *((one.claim, one) for one in own)]
    figure, (axes,) = canvas(0.9 + 0.155 * len(lines), width=WIDE)
    axes.axvline(0, color="0.6", lw=0.8, zorder=1)
    for place, (_, one) in enumerate(lines):
        if one:
            color, marker, face = LOOKS[one.verdict]
            if one.within:
                axes.barh(place, 2 * one.within, left=-one.within, height=0.7, color="0.85", zorder=0)
            axes.plot([one.low, one.high], [place, place], color=color, lw=1.2)
            axes.plot([one.difference], [place], marker, ms=4.5, color=color, mfc=face)
    axes.set_yticks(range(len(lines)), [text for text, _ in lines])
    for label, (_, one) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if one else "bold")
    axes.tick_params(axis="y", length=0)
    # Over the whole figure: long labels leave the axes too narrow for it.
    figure.suptitle(title, fontsize=8)
    axes.set(xlabel="difference (percentage points)", ylim=(len(lines) - 0.5, -0.5))
    set_ticks(axes.xaxis)
    axes.grid(axis="x", lw=0.3, alpha=0.6)
    seen = {one.verdict for one in tested}
    handles = [
        Line2D([], [], ls="", marker=marker, ms=4.5, color=color, mfc=face, label=verdict)
        for verdict, (color, marker, face) in LOOKS.items()
        if verdict in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.2)
    return figure
