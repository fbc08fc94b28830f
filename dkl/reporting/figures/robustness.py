"""Accuracy under attack by the radius of the attack, and by its number of steps: from tables and records to figures."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dkl.manifests import Column, Manifest
from dkl.records import Record
from dkl.reporting.boards import budget_title
from dkl.reporting.boards.paper import PaperBoard
from dkl.reporting.figures.style import MARKERS, Drawing, canvas, line_looks, set_ticks, title_of
from dkl.reporting.grouping import attacks_label, created_at, group, slug, weights_kind
from dkl.reporting.statistics import SeedMean
from dkl.threat import parse_eps

IN_255, IN_PIXELS, STEPS = "1/255", "pixels in [0, 1]", "steps"
"""Units of the horizontal axis: radii as fractions of 255, as they are, and numbers of steps."""


@dataclass(frozen=True)
class Line:
    """Accuracies in percent at ``x``: radii in [0, 1] pixel units, or steps. ``spread`` is the deviation over seeds."""

    label: str
    x: Sequence[float]
    accuracy: Sequence[float]
    published: bool = False
    spread: Sequence[float] | None = None


def radii(tables: Sequence[Manifest], boards: Sequence[PaperBoard], records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness by radius: tables with one column per radius, then all other records at several radii."""
    shown: set[str] = set()
    for table in filter(radius_columns, tables):
        lines = published_lines(table)
        for board in boards:
            if board.manifest.name == table.name and board.budget == "paper":
                for row in board.rows:
                    cells = {
                        _radius(column.eps): row.measurements[key] for key, column in radius_columns(table).items()
                    }
                    values = {eps: [one.value for one in cell.values()] for eps, cell in cells.items() if cell}
                    lines += [_mean_line(row.row.label, values)] if len(values) > 2 else []
                shown |= {record.id for row in board.rows for record in row.records}
        if lines:
            yield f"{table.name}-radii", partial(robustness_curves, lines, title=title_of(table.title))
    # Records in a table's figure are not drawn a second time.
    attacked = [record for record in records if record.attacks and record.id not in shown]
    for alike in group(attacked, lambda r: (r.budget, r.dataset, r.norm, attacks_label(r))).values():
        if lines := record_lines(alike, lambda record: _radius(record.eps), from_clean=True):
            first, attack = alike[0], attacks_label(alike[0])
            title = title_of(f"{first.dataset}, {first.norm}, {attack}", budget_title(first.budget))
            name = slug(f"radii-{first.budget}-{first.dataset}-{first.norm}-{attack}")
            in_255 = any("/255" in record.eps_text for record in alike)
            unit = first.norm if first.norm != "Linf" else IN_255 if in_255 else IN_PIXELS
            yield name, partial(robustness_curves, lines, title=title, unit=unit)


def steps(records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness by the number of steps: PGD and CW of one dataset, threat model and budget on one figure."""
    attacked = [record for record in records if steps_of(record)[0]]
    alike = group(attacked, lambda r: (r.budget, r.dataset, r.norm, r.eps_text, r.n, r.search.get("precision")))
    for same in alike.values():
        lines = [
            replace(line, label=f"{line.label}, {kind}")
            for kind, own in group(same, lambda record: steps_of(record)[0]).items()
            for line in record_lines(own, lambda record: steps_of(record)[1])
        ]
        if lines:
            first, precision = same[0], str(same[0].search.get("precision", ""))
            threat, images = f"{first.norm} {first.eps_text}", f"{first.n:,} images"
            title = title_of(first.dataset, threat, images, precision, budget_title(first.budget))
            parts = (first.budget, first.dataset, first.norm, first.eps_text, first.n, precision)
            name = slug("-".join(map(str, ("steps", *parts))).rstrip("-"))
            yield name, partial(robustness_curves, lines, title=title, unit=STEPS)


def radius_columns(manifest: Manifest) -> dict[str, Column]:
    """Return the columns of a table that differ in the radius of the attack; none if there are fewer than three."""
    columns = {key: column for key, column in manifest.columns.items() if column.metric == "robust" and column.eps}
    return columns if len({column.eps for column in columns.values()}) > 2 else {}


def _radius(eps: str | float | None) -> float:
    """Return a radius in [0, 1] pixel units, rounded so that every spelling gives the same number."""
    return round(parse_eps(eps or 0.0), 9)


def steps_of(record: Record) -> tuple[str, int]:
    """Return the kind of the record's only attack, PGD or CW, and its steps; an empty kind for other attacks."""
    stepped = re.fullmatch(r"(pgd|cw)-(\d+)", "+".join(record.attacks))
    return (stepped[1].upper(), int(stepped[2])) if stepped else ("", 0)


def published_lines(table: Manifest) -> list[Line]:
    """Return a line per row for which the paper prints at least three radii."""
    lines, columns = [], radius_columns(table)
    for row in table.rows:
        values = {_radius(column.eps): row.paper[key] for key, column in columns.items() if key in row.paper}
        if len(values) > 2:
            lines.append(Line(row.label, list(values), list(values.values()), published=True))
    return lines


def record_lines(records: Sequence[Record], x_of: Callable[[Record], float], from_clean: bool = False) -> list[Line]:
    """Return a line per row that has three or more values of ``x_of``; all records share everything else.

    With ``from_clean`` it begins with the clean accuracy, at 0. If several rows have the same method, their labels also
    have the start of their hash and the kind of weights.
    """
    rows: dict[tuple[str, str], dict[float, list[float]]] = {}
    for own in group(records, lambda r: (r.method, r.row, weights_kind(r), r.n, r.data_sha256)).values():
        # A place evaluated twice counts once per seed.
        latest = [max(again, key=created_at) for again in group(own, lambda r: (x_of(r), r.seed)).values()]
        at = group((record for record in latest if record.robust is not None), x_of)
        # Means of different seeds would make steps in the line: only seeds with every place count, if there are some.
        seeds = [{record.seed for record in same} for same in at.values()]
        complete = set.intersection(*seeds) or set.union(*seeds) if seeds else set()
        values = {x: [r.robust for r in at[x] if r.robust is not None and r.seed in complete] for x in sorted(at)}
        if len(values) > 2:
            clean = {record.seed: record.clean for record in latest if record.seed in complete}
            values = {0.0: list(clean.values()), **values} if from_clean else values
            rows[own[0].method, f" ({own[0].row[:4]}, {weights_kind(own[0])})"] = values
    methods = [method for method, _ in rows]
    return [
        _mean_line(method + (which if methods.count(method) > 1 else ""), values)
        for (method, which), values in rows.items()
    ]


def _mean_line(label: str, values: Mapping[float, Sequence[float]]) -> Line:
    """Return the line of the means of ``values``, the fractions of all seeds per place."""
    means = [SeedMean.over(seeds) for seeds in values.values()]
    spread = [100 * (mean.std or 0.0) for mean in means] if any(mean.std is not None for mean in means) else None
    return Line(label, list(values), [100 * mean.mean for mean in means], spread=spread)


def robustness_curves(lines: Sequence[Line], *, title: str, unit: str = IN_255) -> Figure:
    """Plot accuracy under an attack by its radius in ``unit``, or by its steps on a logarithmic axis.

    Each method has its own look and marker; published values are hollow, ours filled. Bars are the spread.
    """
    figure, (axes,) = canvas(2.6)
    scale = 255 if unit == IN_255 else 1
    ours = " (ours)" if any(line.published for line in lines) else ""
    labels = list(dict.fromkeys(line.label for line in lines))
    looks = line_looks(labels)
    for line in lines:
        place = labels.index(line.label)
        axes.errorbar(
            [scale * x for x in line.x],
            line.accuracy,
            line.spread,
            **looks[place],
            marker=MARKERS[place % len(MARKERS)],
            mfc="white" if line.published else None,
            ms=4,
            capsize=2,
            label=line.label + (" (published)" if line.published else ours),
        )
    axes.set(title=title, ylabel="accuracy (%)")
    set_ticks(axes.yaxis)
    axes.grid(axis="y", lw=0.3, alpha=0.6)
    if unit == STEPS:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("steps of the attack")
    else:
        axes.set_xlabel(f"radius of the attack ({unit})")
        axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({round(scale * x, 6) for line in lines for x in line.x}), minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
