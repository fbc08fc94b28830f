"""A manifest, ``experiments/NAME.yaml``: what a table holds, and how to produce each of its rows."""

import re
from collections.abc import Sequence
from dataclasses import field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's, which has no types

from dkl.config import EvaluateConfig, shipped
from dkl.config.compose import plain
from dkl.config.overrides import read_overrides
from dkl.config.schema import WEIGHTS
from dkl.errors import UserError, choose_from, first_line
from dkl.published import PublishedNetwork, published_networks
from dkl.records.metrics import METRICS, TEST
from dkl.storage.files import write_text
from dkl.threat import parse_attacks, parse_eps, parse_threat
from dkl.validation import OneOf, check, first_mistake, settings

UNMEASURED = ("mean", "min", "paper")
"""``mean`` and ``min`` combine other columns. ``paper`` columns show only the paper's value: nothing is measured."""

ORIGINS = ("own", "own_baseline", "quoted", "unknown")
"""Origin of the paper's value: its own method, a baseline it ran, or another paper."""

SUBJECT = ("run", "checkpoint", "data", "model")
"""Keys that name what to evaluate: in a manifest it is the row's own run."""

Values = dict[str, float]
"""Column -> value."""

Overrides = tuple[str, ...]


def _one_per_evaluation(entry: Any) -> Any:
    """A single list of overrides is one evaluation; a list of lists is several."""
    if entry is not None and not isinstance(entry, list | tuple):
        raise ValueError(f"{entry!r} must be a list of overrides, such as [attacks=pgd-20]")
    return entry if entry is None or (entry and isinstance(entry[0], list | tuple)) else [entry]


Evaluations = Annotated[tuple[Overrides, ...], BeforeValidator(_one_per_evaluation)]

QUOTED = "quoted from its paper, not trained here"
"""The usual reason why a row is not run."""

CHECKED = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Column:
    """A measured quantity, in ``unit``: ``%`` of a fraction, else any text, which may be empty.

    ``metric`` is in ``METRICS``, or is ``test_NAME``, which the task's own ``test`` measures. More is better of
    fractions only, unless ``higher_is_better`` says otherwise.
    ``attacks`` is a suite, an attack or a list of attacks. ``eps`` None is the usual radius of the dataset. ``n`` is
    the number of test images if the evaluation takes a part of them. ``weights`` None are those that the recipe keeps.
    ``precision`` is that of the attacks' search. ``of`` are the columns that ``mean`` and ``min`` combine.
    """

    title: str
    metric: Annotated[str, OneOf(*METRICS, *UNMEASURED, prefix=TEST)]
    attacks: str | list[str] = "standard"
    eps: str | None = None
    n: int | None = None
    weights: Annotated[str, OneOf(*WEIGHTS)] | None = None
    precision: Annotated[str, OneOf("float32", "bf16")] = "float32"
    of: tuple[str, ...] = ()
    unit: str = "%"
    higher_is_better: bool | None = None

    @property
    def header(self) -> str:
        """The title, with the number of images if it is a part of the test set."""
        return f"{self.title}, {self.n:,} images" if self.n else self.title

    @property
    def scale(self) -> int:
        """Factor from measured values to the unit: accuracies are measured as fractions."""
        return 100 if self.unit == "%" else 1

    @property
    def more_is_better(self) -> bool:
        """True of accuracies; of seconds less is better."""
        return self.unit == "%" if self.higher_is_better is None else self.higher_is_better


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ManifestRow:
    """A run, or values of another paper.

    - ``name``: unique in the manifest; ``label`` if not given. ``label`` is the method's name in the table.
    - ``overrides``: of ``dkl train``; ``evaluate``: of ``dkl evaluate``, instead of the manifest's.
    - ``quoted``: why the row is not run here (``true`` for the usual reason); its values are then quoted.
    - ``teacher``: a key of the manifest's ``teachers``.
    - ``weights``: of a teacher: its students' overrides that load published weights. It is then trained only at the
      budgets ``trained_at``: smoke downloads nothing.
    - ``show``: cells that describe the row.
    - ``paper``, ``paper_std``, ``published``: values by column; ``published`` by source.
    - ``network``: its published weights, such as ``official:ikl-at-cifar100``; by default those of the first source
      ``RobustBench NAME``.
    """

    label: str
    name: str = ""
    overrides: Overrides = ()
    quoted: Annotated[str | None, BeforeValidator(lambda entry: QUOTED if entry is True else entry)] = None
    teacher: str | None = None
    weights: Overrides = ()
    trained_at: tuple[str, ...] = ("smoke",)
    evaluate: Evaluations | None = None
    show: dict[str, str] = field(default_factory=dict)
    origin: Annotated[str, OneOf(*ORIGINS)] | None = None
    paper: Values = field(default_factory=dict)
    paper_std: Values = field(default_factory=dict)
    published: dict[str, Values] = field(default_factory=dict)
    network: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.label)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Claim:
    """The row ``better`` is better in ``column`` than the row ``than``: in the paper, or as expected.

    ``text`` says it in a sentence, and ``source`` where the paper does; claims with a text have a board of their own.
    If the source is a table, ``paper`` names the comparison in its manifest: the better row, the other, the column.
    With ``within`` both rows are claimed to be the same, as DKL and KL are, up to so much in the column's unit.
    """

    better: str
    than: str
    column: str
    text: str = ""
    source: str = ""
    paper: tuple[str, str, str] | None = None
    within: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Manifest:
    """A table, a figure or another experiment; ``name`` is the file's name.

    - ``overrides``: of ``dkl train``, for all rows.
    - ``sizes``: overrides if the command gives no budget; ``at``: more overrides at a budget.
    - ``evaluate``: overrides of ``dkl evaluate``, one list per evaluation.
    - ``teachers``: rows trained once, at seed 0, before the first row that names them.
    - ``next``: what to suggest to the user afterwards.
    - ``figure``: settings of the figure to draw. ``lines`` of a frontier: by name, its rows by their weights;
      ``panels``: the columns of x and y of each; ``chosen``: rows to compare with the first line at equal x.
    - ``pictures``: overrides of ``dkl evaluate`` for the attack whose images are shown of every trained run; no
      pictures if empty.
    """

    name: str
    title: str
    caption: str = ""
    overrides: Overrides = ()
    sizes: Overrides = ()
    at: dict[str, Overrides] = field(default_factory=dict)
    evaluate: Evaluations = ()
    seeds: tuple[int, ...] = (0,)
    columns: dict[str, Column] = field(default_factory=dict)
    teachers: dict[str, ManifestRow] = field(default_factory=dict)
    rows: tuple[ManifestRow, ...] = ()
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    next: str | None = None
    figure: dict[str, Any] = field(default_factory=dict)
    pictures: Overrides = ()

    @cached_property
    def _of_the_paper(self) -> re.Match[str] | None:
        return re.fullmatch(r"(table|figure)-(\d+)", self.name)

    @property
    def kind(self) -> str | None:
        """``table`` or ``figure`` of the paper; None for other experiments."""
        return self._of_the_paper[1] if self._of_the_paper else None

    @property
    def number(self) -> int | None:
        """The number of the paper's table or figure; None for other experiments."""
        return int(self._of_the_paper[2]) if self._of_the_paper else None

    @property
    def option(self) -> str:
        """The manifest's name on the command line: ``table=2``, or ``experiment=NAME``."""
        return f"{self.kind}={self.number}" if self.kind else f"experiment={self.name}"

    @property
    def runnable(self) -> tuple[ManifestRow, ...]:
        """The rows that are run, not quoted."""
        return tuple(row for row in self.rows if row.quoted is None)

    def evaluations(self, row: ManifestRow) -> tuple[Overrides, ...]:
        """Overrides of each evaluation of ``row``."""
        return self.evaluate if row.evaluate is None else row.evaluate

    def network(self, row: ManifestRow) -> PublishedNetwork | None:
        """The published network of ``row``; None if there is none that can be built."""
        data = [text for text in (*self.overrides, *row.overrides) if text.startswith("data=")]
        # Recipes with synthetic images have data of their own, such as cifar100_50m; test images are the dataset's.
        dataset = re.sub(r"_\d+m$", "", data[-1].removeprefix("data=")) if data else ""
        listed = (source.partition(" ") for source in row.published)
        names = [row.network, *(f"robustbench:{name}" for source, _, name in listed if source == "RobustBench")]
        built = [*published_networks("official"), *(n for n in published_networks() if n.dataset == dataset)]
        return next((network for name in names for network in built if network.name == name), None)


_READER = TypeAdapter(Manifest)

_MODELS = {"": Manifest, "columns": Column, "rows": ManifestRow, "teachers": ManifestRow, "claims": Claim}


def names() -> list[str]:
    """List the names of all manifests."""
    return sorted(path.stem for path in shipped("experiments").glob("*.yaml"))


def load_all(results: Path | None = None) -> tuple[list[Manifest], list[str]]:
    """Read every manifest, and those that ``keep`` has written to ``results``.

    Also returns one message per file that is wrong, which does not stop the others.
    """
    found: list[Manifest] = []
    problems: list[str] = []
    own = sorted((results / "experiments").glob("*.yaml")) if results else []
    for path in [*(shipped("experiments") / f"{name}.yaml" for name in names()), *own]:
        try:
            found.append(read(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems


def load(name: str) -> Manifest:
    """Read the manifest ``name``, which may be a FILE.yaml. Raises UserError if there is none, or it is wrong."""
    own = name.endswith(".yaml")
    path = Path(name) if own else shipped("experiments") / f"{name}.yaml"
    if own and path.stem in names() and path.resolve().parent != shipped("experiments"):
        raise UserError(f"experiment={name} has the name of one that dkl has: rename the file")
    if not path.is_file():
        raise UserError(f"there is no experiment {name!r}: give FILE.yaml, or {choose_from(name, names())}")
    return read(path)


def keep(path: Path, results: Path, overrides: Sequence[str]) -> None:
    """Copy the manifest in ``path`` to ``results``, so that tables have it, with the search path in ``overrides``."""
    content = plain(OmegaConf.load(path))
    search = [text for text in overrides if text.startswith("hydra.searchpath=")]
    content["overrides"] = [*search, *content.get("overrides", [])]
    write_text(results / "experiments" / path.name, OmegaConf.to_yaml(content))


def read(path: Path) -> Manifest:
    """Read the manifest in the file ``path``. Raises UserError, which names the file and the field, if it is wrong."""
    return _read(path, path.read_bytes() if path.is_file() else b"")


@lru_cache(maxsize=64)
def _read(path: Path, data: bytes) -> Manifest:
    """Read a manifest once per content: a command needs each several times, and its YAML takes a tenth of a second."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, it must hold keys such as title and rows")
        teachers = content.get("teachers") or {}
        if not isinstance(teachers, dict) or not all(isinstance(teacher, dict) for teacher in teachers.values()):
            raise ValueError("teachers must hold one mapping per teacher")
        content["teachers"] = {key: {"name": f"teacher {key}", "label": "Teacher", **teachers[key]} for key in teachers}
        manifest: Manifest = _READER.validate_python({"name": path.stem, **content})
        _check(manifest)
        return manifest
    except ValidationError as error:
        why = first_mistake(error, _MODELS)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        why = f"this is no YAML: {getattr(error, 'problem', None) or first_line(error)}{place}"
    except (OSError, ValueError, OmegaConfBaseException, UserError) as error:
        why = first_line(error)
    raise UserError(f"{path.name}: {why}") from None


def _check(manifest: Manifest) -> None:
    """Raise ValueError if one part of the manifest names another that does not exist, UserError on a wrong value."""
    rows = [row.name for row in manifest.rows]
    columns = set(manifest.columns)
    if not manifest.seeds or min(manifest.seeds) < 0 or len(set(manifest.seeds)) < len(manifest.seeds):
        raise ValueError(f"seeds is {list(manifest.seeds)}, it must hold different whole numbers of at least 0")
    if repeated := sorted({name for name in rows if rows.count(name) > 1}):
        raise ValueError(f"there are two rows named {', '.join(repeated)}: give each its own name")
    for evaluation in (*manifest.evaluate, manifest.pictures):
        _check_evaluation(evaluation)
    for key, column in manifest.columns.items():
        if column.metric == "robust" and not parse_attacks(column.attacks):
            raise ValueError(f"column {key} is robust accuracy and has attacks: {column.attacks}; use metric: clean")
        if column.eps is not None:
            parse_eps(column.eps)
        if unknown := set(column.of) - columns:
            raise ValueError(f"column {key} is of {', '.join(sorted(unknown))}; the columns are {', '.join(columns)}")
    for row in (*manifest.rows, *manifest.teachers.values()):
        for values in (row.paper, row.paper_std, *row.published.values()):
            if unknown := set(values) - columns:
                raise ValueError(f"row {row.name} has values for {', '.join(sorted(unknown))}, which are no columns")
        if row.teacher is not None and row.teacher not in manifest.teachers:
            raise ValueError(f"row {row.name} names the teacher {row.teacher}, which is not among teachers")
        if own := next((text for text in row.overrides if re.match(r"\+*(seed|label)=", text)), None):
            raise ValueError(f"row {row.name} sets {own}: the manifest's seeds and the row's label set it; remove it")
        if row.quoted is not None and (row.overrides or row.teacher):
            raise ValueError(f"row {row.name} is quoted and has overrides: remove one of the two")
        for evaluation in row.evaluate or ():
            _check_evaluation(evaluation)
        if row.quoted is None and not manifest.evaluations(row):
            raise ValueError(f"row {row.name} is run but never evaluated: add evaluate to it or to the manifest")
        if row.network and getattr(manifest.network(row), "name", None) != row.network:
            raise ValueError(f"row {row.name} has network: {row.network}, which docs/zoo.md does not list; correct it")
    lines = manifest.figure.get("lines", {})
    named = {name for line in lines.values() for name in line.values()} | set(manifest.figure.get("chosen", ()))
    if unknown := named - set(rows):
        raise ValueError(f"figure names {', '.join(sorted(unknown))}, which are no rows")
    for claim in manifest.claims:
        if unknown := {claim.better, claim.than} - set(rows) or {claim.column} - columns:
            raise ValueError(f"a claim names {', '.join(sorted(unknown))}, which is no row or column")


def _check_evaluation(overrides: Sequence[str]) -> None:
    """Raise UserError if ``overrides`` name no option of ``dkl evaluate``, or a value outside its range."""
    known = [item.name for item in fields(EvaluateConfig) if item.name not in SUBJECT]
    given: dict[str, Any] = {}
    for override in read_overrides(overrides):
        key = override.key_or_group
        if key.partition(".")[0] not in known:
            raise UserError(f"there is no option {key!r} of an evaluation: {choose_from(key, known)}")
        given[key] = override.value()
    check(settings(EvaluateConfig, given))
    attacks = parse_attacks(given.get("attacks", "standard"))
    threat = {key: given[key] for key in ("norm", "eps") if key in given}
    if threat and not attacks:
        raise UserError(f"attacks=none attacks nothing: leave out {' and '.join(threat)}")
    if threat:
        parse_threat(str(threat.get("norm", "linf")), threat.get("eps", 0))
