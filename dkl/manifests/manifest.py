"""One manifest, ``experiments/NAME.yaml``, read strictly: what a table holds, and how each row comes about.

``overrides`` of ``dkl train`` are common to all rows, ``sizes`` hold where no budget is given, and ``at`` adds
overrides at a budget. ``evaluate`` has overrides of ``dkl evaluate``, or a list of such lists: one evaluation each.
``rows`` are runs, or ``quoted`` figures of other papers (true, or the reason why they cannot be run here).
``teachers`` are rows that are trained once, at seed 0, before the first row that names them. ``columns`` say what is
measured, and rows what the ``paper`` prints there and what else is ``published``. ``claims`` are what the table says:
that one row is better than another.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl.config import shipped
from dkl.errors import UserError

METRICS = (
    *("clean", "robust", "top1", "top5", "best", "many", "medium", "few", "step_seconds"),
    *("mean", "min", "paper"),
)
"""What a column may hold; ``mean`` and ``min`` are over other columns, ``paper`` is never measured here."""

ORIGINS = ("own", "own_baseline", "quoted", "unknown")
"""Whose figure the paper prints: of its own method, of its baselines, or another paper's."""

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measured quantity. ``eps`` of None is the data set's customary radius; figures are percent but for ``unit``."""

    title: str
    metric: str
    attacks: Any = "standard"
    eps: str | None = None
    of: tuple[str, ...] = ()
    unit: str = "%"


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """A run, or figures ``quoted`` from elsewhere (why); ``show`` are cells that describe it, ``label`` its method.

    ``paper``, ``paper_std`` and each of ``published`` hold figures by column. A teacher's ``weights`` are overrides of
    its students that fetch published ones; it is then trained at budget smoke only, in their stead.
    """

    name: str
    label: str
    overrides: tuple[str, ...] = ()
    quoted: str | None = None
    teacher: str | None = None
    weights: tuple[str, ...] = ()
    evaluations: tuple[tuple[str, ...], ...] | None = None
    show: dict[str, str] = field(default_factory=dict)
    origin: str | None = None
    paper: Figures = field(default_factory=dict)
    paper_std: Figures = field(default_factory=dict)
    published: dict[str, Figures] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The row ``better`` has the higher ``column`` than the row ``than``, by the paper."""

    better: str
    than: str
    column: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A table, a figure or another experiment; ``name`` is its file's."""

    name: str
    title: str
    caption: str = ""
    overrides: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    at: dict[str, tuple[str, ...]] = field(default_factory=dict)
    evaluations: tuple[tuple[str, ...], ...] = ()
    seeds: tuple[int, ...] = (0,)
    columns: dict[str, Column] = field(default_factory=dict)
    teachers: dict[str, ManifestRow] = field(default_factory=dict)
    rows: tuple[ManifestRow, ...] = ()
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    next: str | None = None
    figure: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _of_the_paper(self) -> re.Match[str] | None:
        return re.fullmatch(r"(table|figure)-(\d+)", self.name)

    @property
    def kind(self) -> str | None:
        """``table`` or ``figure`` of the paper; None for other experiments."""
        return self._of_the_paper[1] if self._of_the_paper else None

    @property
    def number(self) -> int | None:
        """The number of that table or figure."""
        return int(self._of_the_paper[2]) if self._of_the_paper else None

    @property
    def option(self) -> str:
        """What names it on the command line: ``table=2``, or ``experiment=NAME``."""
        return f"{self.kind}={self.number}" if self.kind else f"experiment={self.name}"

    @property
    def runnable(self) -> tuple[ManifestRow, ...]:
        """The rows that are run, not quoted."""
        return tuple(row for row in self.rows if row.quoted is None)


def names() -> list[str]:
    """Every manifest there is."""
    return sorted(path.stem for path in shipped("experiments").glob("*.yaml"))


def load(name: str) -> Manifest:
    """The manifest ``name``. Raises UserError where there is none, or it is not right, naming file and mistake."""
    path = shipped("experiments") / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no experiment {name!r}; there are {', '.join(names())}")
    return read(path)


def read(path: Path) -> Manifest:
    """The manifest in the file ``path``. Raises UserError that names it where it is not right."""
    loaded = OmegaConf.load(path)
    assert isinstance(loaded, DictConfig)
    content = OmegaConf.to_container(loaded)
    assert isinstance(content, dict)
    try:
        found = _manifest(path.stem, {str(key): value for key, value in content.items()})
        _check(found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path.name}: {error}") from None
    return found


def _made(cls: type, content: Mapping[str, Any], where: str) -> Any:
    """``cls`` of ``content``, lists as tuples. Raises ValueError on unknown and missing keys."""
    known = {item.name for item in fields(cls)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{where} has unknown keys {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    try:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _evaluations(entry: list[Any]) -> tuple[tuple[str, ...], ...]:
    """One tuple of overrides an evaluation, from one list or a list of them."""
    nested = bool(entry) and isinstance(entry[0], list)
    return tuple(map(tuple, entry)) if nested else (tuple(entry),)


def _row(content: dict[str, Any], where: str) -> ManifestRow:
    entry = dict(content)
    entry.setdefault("name", entry.get("label"))
    if "evaluate" in entry:
        entry["evaluations"] = _evaluations(entry.pop("evaluate"))
    if entry.get("quoted") is True:
        entry["quoted"] = "quoted from its paper, not trained here"
    row: ManifestRow = _made(ManifestRow, entry, f"{where} {entry['name']}")
    return row


def _manifest(name: str, content: dict[str, Any]) -> Manifest:
    entry = {"name": name, **content}
    if "evaluate" in entry:
        entry["evaluations"] = _evaluations(entry.pop("evaluate"))
    entry["at"] = {budget: tuple(overrides) for budget, overrides in entry.get("at", {}).items()}
    columns = entry.get("columns", {})
    entry["columns"] = {key: _made(Column, column, f"column {key}") for key, column in columns.items()}
    teachers = entry.get("teachers", {})
    entry["teachers"] = {
        key: _row({"name": f"teacher {key}", "label": "Teacher", **teacher}, "teacher")
        for key, teacher in teachers.items()
    }
    entry["rows"] = [_row(row, "row") for row in entry.get("rows", [])]
    entry["claims"] = [_made(Claim, claim, "claim") for claim in entry.get("claims", [])]
    made: Manifest = _made(Manifest, entry, "it")
    return made


def _check(found: Manifest) -> None:
    """Raise ValueError where parts name what is not there."""
    rows = [row.name for row in found.rows]
    if twice := sorted({name for name in rows if rows.count(name) > 1}):
        raise ValueError(f"there are two rows named {', '.join(twice)}: give each a name of its own")
    for key, column in found.columns.items():
        if column.metric not in METRICS:
            raise ValueError(f"column {key} has the metric {column.metric}; there are {', '.join(METRICS)}")
        if lost := set(column.of) - set(found.columns):
            raise ValueError(f"column {key} is of {', '.join(sorted(lost))}, which are no columns")
    for row in (*found.rows, *found.teachers.values()):
        for figures in (row.paper, row.paper_std, *row.published.values()):
            if lost := set(figures) - set(found.columns):
                raise ValueError(f"row {row.name} has figures for {', '.join(sorted(lost))}, which are no columns")
        if odd := [f"{key}: {cell}" for key, cell in row.show.items() if not isinstance(cell, str)]:
            raise ValueError(f"row {row.name} shows {', '.join(odd)}, which is no text: quote it")
        if row.teacher is not None and row.teacher not in found.teachers:
            raise ValueError(f"row {row.name} names the teacher {row.teacher}, which is not among teachers")
        if row.origin not in (None, *ORIGINS):
            raise ValueError(f"row {row.name} has the origin {row.origin}; there are {', '.join(ORIGINS)}")
        if row.quoted is not None and (row.overrides or row.teacher):
            raise ValueError(f"row {row.name} is quoted and has overrides: it is one or the other")
        if row.quoted is None and not (found.evaluations if row.evaluations is None else row.evaluations):
            raise ValueError(f"row {row.name} is run and never evaluated: give it, or the manifest, an evaluate entry")
    for claim in found.claims:
        if lost := {claim.better, claim.than} - set(rows) or {claim.column} - set(found.columns):
            raise ValueError(f"a claim names {', '.join(sorted(lost))}, which is not there")
