"""Points and lines of figures, from the published values of a table, its measured rows, or other records."""

import re
from collections.abc import Callable, Sequence

from dkl.manifests import Column, Manifest, ManifestRow
from dkl.records import Record
from dkl.reporting.boards.paper import PaperBoard, PaperRow
from dkl.reporting.figures.plots.curves import Line
from dkl.reporting.figures.plots.tradeoff import Point
from dkl.reporting.grouping import created_at, group, weights_kind
from dkl.reporting.statistics.seeds import SeedMean
from dkl.threat import parse_eps


def published_points(manifest: Manifest, x: str, y: str, by: str) -> list[Point]:
    """Return a point per row whose columns ``x`` and ``y`` are published, preferably by the paper.

    The cell ``by`` of a row gives its group.
    """
    points = []
    for row in manifest.rows:
        both = [figures for figures in (row.paper, *row.published.values()) if x in figures and y in figures]
        points += [Point(row.label, both[0][x], both[0][y], row.show.get(by, ""), row.origin)] if both else []
    return points


def measured_points(board: PaperBoard, x: str, y: str, group_of: Callable[[PaperRow], str]) -> list[Point]:
    """Return a point per row that we ran: the mean over the seeds that have both columns."""
    points = []
    for found in board.rows:
        across, up = found.measurements[x], found.measurements[y]
        if seeds := sorted(across.keys() & up.keys()):
            # Both coordinates average over the same seeds, else the point would mix different runs.
            (mean_x, std_x), (mean_y, std_y) = (_percent([cell[seed].value for seed in seeds]) for cell in (across, up))
            spread = None if std_x is None or std_y is None else (std_x, std_y)
            points.append(Point(found.row.label, mean_x, mean_y, group_of(found), "here", spread))
    return points


def _percent(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation in percent, from one fraction per seed."""
    seeds = SeedMean.over(values)
    return 100 * seeds.mean, None if seeds.std is None else 100 * seeds.std


def radius_columns(manifest: Manifest) -> dict[str, Column]:
    """Return the columns of a table that differ in the radius of the attack; none if there are fewer than three."""
    found = {key: column for key, column in manifest.columns.items() if column.metric == "robust" and column.eps}
    return found if len({column.eps for column in found.values()}) > 2 else {}


def _radius(eps: str | float | None) -> float:
    """Return a radius in [0, 1] pixel units, rounded so that every spelling gives the same number."""
    return round(parse_eps(eps or 0.0), 9)


def published_lines(manifest: Manifest) -> list[Line]:
    """Return a line per row for which the paper prints at least three radii."""
    columns = radius_columns(manifest)

    def line(row: ManifestRow) -> Line:
        there = [key for key in columns if key in row.paper]
        return Line(row.label, [_radius(columns[key].eps) for key in there], [row.paper[key] for key in there], True)

    return [line for line in map(line, manifest.rows) if len(line.x) > 2]


def measured_lines(board: PaperBoard) -> list[Line]:
    """Return a line per row that we ran and attacked at three or more radii."""
    columns = radius_columns(board.manifest)

    def values(row: PaperRow) -> dict[float, list[float]]:
        cells = {_radius(column.eps): row.measurements[key] for key, column in columns.items()}
        return {eps: [found.value for found in cell.values()] for eps, cell in cells.items() if cell}

    return _lines([(found.row.label, values(found)) for found in board.rows])


def record_lines(records: Sequence[Record]) -> list[Line]:
    """Return a line per row attacked at three or more radii; it begins with the clean accuracy, at radius 0.

    All records share dataset, norm, attack and budget. If several rows have the same method, their labels also have the
    start of their hash and the kind of weights.
    """
    return _record_lines(records, lambda record: _radius(record.eps), from_clean=True)


def step_lines(records: Sequence[Record]) -> list[Line]:
    """Return a line per row attacked with three or more numbers of steps; all records share everything else."""
    return _record_lines(records, lambda record: steps_of(record)[1])


def steps_of(record: Record) -> tuple[str, int]:
    """The kind of the record's only attack, PGD or CW, and its number of steps; an empty kind for other attacks."""
    found = re.fullmatch(r"(pgd|cw)-(\d+)", "+".join(record.attacks))
    return (found[1].upper(), int(found[2])) if found else ("", 0)


def _record_lines(records: Sequence[Record], x_of: Callable[[Record], float], from_clean: bool = False) -> list[Line]:
    """Return a line per row that has three or more values of ``x_of``."""
    found: dict[tuple[str, str], dict[float, list[float]]] = {}
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
            found[own[0].method, f" ({own[0].row[:4]}, {weights_kind(own[0])})"] = values
    methods = [method for method, _ in found]
    return _lines(
        [(method + (which if methods.count(method) > 1 else ""), values) for (method, which), values in found.items()]
    )


def _lines(found: Sequence[tuple[str, dict[float, list[float]]]]) -> list[Line]:
    """Make lines of at least three places from a label and the values of all seeds per place."""
    lines = []
    for label, values in found:
        if len(values) > 2:
            percents = [_percent(seeds) for seeds in values.values()]
            spread = [std or 0.0 for _, std in percents] if any(std is not None for _, std in percents) else None
            lines.append(Line(label, list(values), [mean for mean, _ in percents], spread=spread))
    return lines
