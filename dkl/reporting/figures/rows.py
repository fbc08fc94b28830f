"""What is drawn of a table's rows and of other records: the paper's figures, and means over seeds of those measured."""

from collections.abc import Sequence

from dkl.manifests import Column, Manifest, ManifestRow
from dkl.records import Record
from dkl.reporting.boards.paper_board import PaperBoard, PaperRow
from dkl.reporting.figures.curves import Line
from dkl.reporting.figures.tradeoff import Point
from dkl.reporting.grouping import age, group, weights
from dkl.reporting.statistics.estimates import Estimate
from dkl.threat import parse_eps


def published_points(manifest: Manifest, x: str, y: str, by: str) -> list[Point]:
    """A point for every row whose columns ``x`` and ``y`` are published: as the paper prints them, if it does.

    The cell ``by`` of a row gives its group.
    """
    points = []
    for row in manifest.rows:
        both = [figures for figures in (row.paper, *row.published.values()) if x in figures and y in figures]
        points += [Point(row.label, both[0][x], both[0][y], row.show.get(by, ""), row.origin)] if both else []
    return points


def measured_points(board: PaperBoard, x: str, y: str, by: str) -> list[Point]:
    """A point for every row that was run here, over the seeds that have both columns."""
    points = []
    for found in board.rows:
        across, up = found.cells[x], found.cells[y]
        if seeds := sorted(across.keys() & up.keys()):
            (mean_x, std_x), (mean_y, std_y) = (_percent([cell[seed].value for seed in seeds]) for cell in (across, up))
            spread = None if std_x is None or std_y is None else (std_x, std_y)
            points.append(Point(found.row.label, mean_x, mean_y, found.row.show.get(by, ""), "here", spread))
    return points


def _percent(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation of one fraction a seed, in percent."""
    found = Estimate.over(values)
    return 100 * found.mean, None if found.std is None else 100 * found.std


def radii(manifest: Manifest) -> dict[str, Column]:
    """The columns of a table that differ in the radius of the attack; none where there are fewer than three."""
    found = {key: column for key, column in manifest.columns.items() if column.metric == "robust" and column.eps}
    return found if len({column.eps for column in found.values()}) > 2 else {}


def _radius(eps: str | float | None) -> float:
    """A radius in pixel units, the same however it is spelt."""
    return round(parse_eps(eps or 0.0), 9)


def published_lines(manifest: Manifest) -> list[Line]:
    """A line for every row of which the paper prints three radii or more."""
    columns = radii(manifest)

    def line(row: ManifestRow) -> Line:
        there = [key for key in columns if key in row.paper]
        return Line(row.label, [_radius(columns[key].eps) for key in there], [row.paper[key] for key in there], True)

    return [line for line in map(line, manifest.rows) if len(line.eps) > 2]


def measured_lines(board: PaperBoard) -> list[Line]:
    """A line for every row that was run here and attacked at three radii or more."""
    columns = radii(board.manifest)

    def values(row: PaperRow) -> dict[float, list[float]]:
        cells = {_radius(column.eps): row.cells[key] for key, column in columns.items()}
        return {eps: [found.value for found in cell.values()] for eps, cell in cells.items() if cell}

    return _lines([(found.row.label, values(found)) for found in board.rows])


def lines_of(records: Sequence[Record]) -> list[Line]:
    """A line for every row among ``records`` of one data set, norm, attack and budget: three radii or more.

    Where several rows have one name, each is told by what it was trained with and which weights it is.
    """
    found: dict[tuple[str, str], dict[float, list[float]]] = {}
    for own in group(records, lambda r: (r.method, _trained(r), weights(r), r.n, r.data_sha256)).values():
        latest = [max(again, key=age) for again in group(own, lambda r: (_radius(r.eps), r.seed)).values()]
        at = group(latest, lambda record: _radius(record.eps))
        values = {eps: [r.robust for r in at[eps] if r.robust is not None] for eps in sorted(at)}
        if len(values) > 2:
            found[own[0].method, f" ({_trained(own[0])[:4]}, {weights(own[0])})"] = values
    methods = [method for method, _ in found]
    return _lines(
        [(method + (which if methods.count(method) > 1 else ""), values) for (method, which), values in found.items()]
    )


def _trained(record: Record) -> str:
    """What seeds of a row share, or a file's hash where weights were trained elsewhere."""
    return record.row


def _lines(found: Sequence[tuple[str, dict[float, list[float]]]]) -> list[Line]:
    """From a label and one value a seed at each radius, where there are three radii or more."""
    lines = []
    for label, values in found:
        if len(values) > 2:
            percents = [_percent(seeds) for seeds in values.values()]
            spread = [std or 0.0 for _, std in percents] if any(std is not None for _, std in percents) else None
            lines.append(Line(label, list(values), [mean for mean, _ in percents], spread=spread))
    return lines
