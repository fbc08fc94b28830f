"""Lists and compares the runs of a results folder, from the files in their folders: no torch, no composition."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # OmegaConf's, which has no types; OmegaConf itself takes 20 ms per file

from dkl.config.identity import leaves
from dkl.errors import UserError
from dkl.records import Curves, Record, load_all
from dkl.reporting.boards import NONE, plain_percent
from dkl.reporting.formats import TextTable
from dkl.reporting.grouping import attacks_label, created_at, group, setting_name, value_text
from dkl.storage.files import digest, is_locked

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C is ten times faster, but some installations lack it."""

TEST_ACCURACIES = ("average_test_miou", "test_miou", "average_test_accuracy", "test_accuracy")
"""Metrics on test images; the first that a run has counts. A run with averaged weights keeps the average."""

ROBUST_ACCURACIES = ("best_robust_accuracy", "robust_accuracy")
"""Metrics of robust accuracy on held-out images, the first that a run has counts."""

IGNORED = ("paths.", "logger.", "logger", "model.title", "data.source.download")
"""Settings, or their beginnings, that cannot change a result."""

WHERE = ("trainer.device", "trainer.threads", "trainer.workers", "trainer.validate_every")
"""Settings of where and how often, which the hash of a run leaves out as well."""

NAMED = ("data.name", "model.name", "loss._target_", "seed")
"""Settings that are part of a run's name."""

LONGEST_NAME = 3
"""Up to this many runs, their hashes name the figure; more are hashed again."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run of ``dkl train``.

    ``settings`` are the values of its ``config.yaml`` by dotted key, interpolations unresolved. ``metrics`` has one row
    per trained epoch. ``records`` are its evaluations, from old to new.
    """

    folder: Path
    settings: Mapping[str, Any]
    metrics: Curves
    records: list[Record] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def hash(self) -> str:
        """The hash of its configuration, which ends its name."""
        return self.name.rpartition("-")[2]

    @property
    def epochs(self) -> str:
        """Trained epochs and all epochs, such as ``7/20``."""
        return f"{len(self.metrics)}/{self.settings['trainer.epochs']}"

    @cached_property
    def state(self) -> str:
        """``done``, ``running`` (another process holds its lock) or ``interrupted``."""
        if len(self.metrics) >= self.settings["trainer.epochs"]:
            return "done"
        return "running" if is_locked(self.folder / ".lock") else "interrupted"

    def last(self, *metrics: str) -> float | None:
        """Return the last value of the first of ``metrics`` that any epoch has."""
        for metric in metrics:
            if values := [row[metric] for row in self.metrics if metric in row]:
                return values[-1]
        return None

    @property
    def test(self) -> str:
        """The last test accuracy in percent, or nothing."""
        return plain_percent(self.last(*TEST_ACCURACIES))

    @property
    def robust(self) -> str:
        """The newest robust accuracy in percent with its attack; without an evaluation, that on held-out images."""
        if attacked := [record for record in self.records if record.robust is not None]:
            label = attacks_label(attacked[-1]).removesuffix(" (not AutoAttack)")
            return f"{plain_percent(attacked[-1].robust)} ({label})"
        held_out = plain_percent(self.last(*ROBUST_ACCURACIES))
        return f"{held_out} (held out)" if held_out else ""


def read_runs(results: Path) -> tuple[list[RunSummary], list[str]]:
    """Read every run in ``results``, sorted by name, and one message per run or record that cannot be read.

    Raises UserError if there is none.
    """
    records, problems = load_all(results / "records")
    # Evaluated as anyone's checkpoint, its weights may be another network, such as one with another normalization.
    own = sorted((record for record in records if record.seed is not None), key=created_at)
    by_run = group(own, lambda record: record.checkpoint.partition("/")[0])
    runs: list[RunSummary] = []
    for path in sorted((results / "runs").glob("*/config.yaml")):
        try:
            runs.append(read_run(path.parent, by_run.get(path.parent.name, [])))
        except UserError as error:
            problems.append(str(error))
    if not runs:
        broken = "".join(f"; {problem}" for problem in problems)
        raise UserError(
            f"{results / 'runs'} has no run: train one by dkl train, or name another results=FOLDER{broken}"
        )
    return runs, problems


def find_run(runs: list[RunSummary], name: str) -> RunSummary:
    """Return the run that ``name`` means: its folder, the folder's name, or a part of the name that only it has.

    Raises UserError if there is none, or more than one.
    """
    wanted = Path(name).name
    matches = [run for run in runs if wanted == run.name] or [run for run in runs if wanted in run.name]
    if not matches:
        raise UserError(f"there is no run {name}: dkl runs lists them")
    if len(matches) > 1:
        names = ", ".join(run.name for run in matches)
        raise UserError(f"{name} is a part of {len(matches)} names: {names}; give more of one")
    return matches[0]


def read_run(folder: Path, records: list[Record]) -> RunSummary:
    """Read the run in ``folder``, whose evaluations are ``records``.

    Raises UserError, which names the file, if its files are broken.
    """
    path = folder / "config.yaml"
    try:
        content = yaml.load(path.read_bytes(), LOADER)
        settings = dict(leaves(content)) if isinstance(content, dict) else {}
        if not isinstance(settings.get("trainer.epochs"), int):
            raise ValueError("it has no trainer.epochs")
        path = folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        metrics = [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) and "epoch" in row for row in metrics):
            raise ValueError("a row has no epoch")
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {why}; delete the run, or train it again") from None
    return RunSummary(folder=folder, settings=settings, metrics=metrics, records=records)


def _chosen(runs: Sequence[RunSummary], terms: Sequence[str], order: str | None, limit: int | None) -> list[RunSummary]:
    def fits(run: RunSummary, term: str) -> bool:
        key, equals, value = term.partition("=")
        named = {setting_name(name): value_text(own) for name, own in run.settings.items()}
        return named.get(key) == value if equals else term in run.name

    found = [run for run in runs if all(fits(run, term) for term in terms)]
    if not found:
        raise UserError(f"none of {len(runs)} runs fits filter={','.join(terms)}: leave it out to list them all")
    keys: dict[str, Callable[[RunSummary], float]] = {
        "new": lambda run: -(run.folder / "config.yaml").stat().st_mtime,
        "test": lambda run: -(run.last(*TEST_ACCURACIES) or 0),
        "robust": lambda run: -float(run.robust.partition(" ")[0] or 0),
    }
    return (sorted(found, key=keys[order]) if order in keys else found)[:limit]


def listing(
    runs: Sequence[RunSummary], terms: Sequence[str] = (), order: str | None = None, limit: int | None = None
) -> TextTable:
    """Return a table of runs with epochs, accuracies in percent, state, and what is special about each.

    It has at most ``limit`` of the ``runs`` that fit all ``terms``, in ``order``: name, new, test or robust. A term is
    a part of the name, or ``KEY=VALUE`` of a setting as ``dkl runs compare`` prints it. Raises UserError if no run
    fits.
    """
    chosen = _chosen(runs, terms, order, limit)
    return TextTable(
        title="Runs",
        header=("Run", "Epochs", "Test (%)", "Robust (%)", "State", "Differs in"),
        rows=tuple(
            (run.name, run.epochs, run.test, run.robust, run.state, differs)
            for run, differs in zip(chosen, own_differences(chosen), strict=True)
        ),
        alignments="lrrlll",
    )


RESULTS: dict[str, Callable[[RunSummary], str]] = {
    "state": lambda run: run.state,
    "epochs": lambda run: run.epochs,
    "training loss": lambda run: _number(run.last("loss"), ".4f"),
    "test (%)": lambda run: run.test,
    "clean (%), evaluated": lambda run: plain_percent(run.records[-1].clean) if run.records else "",
    "robust (%)": lambda run: run.robust,
    "images per second": lambda run: _number(run.last("images_per_second"), ".0f"),
}
"""Results by name. A line that no run has is left out."""


def comparison(runs: Sequence[RunSummary]) -> TextTable:
    """Return a table with one column per run: the settings that differ, then the results."""
    settings = [
        (setting_name(key), *(value_text(run.settings[key]) if key in run.settings else NONE for run in runs))
        for key in changed_keys(runs)
    ]
    results = [(name, *(value(run) or NONE for run in runs)) for name, value in RESULTS.items()]
    return TextTable(
        title="Comparison",
        header=("", *(run.hash for run in runs)),
        rows=(*settings, *(row for row in results if set(row[1:]) != {NONE})),
        alignments="l" * (len(runs) + 1),
    )


def draw_curves(runs: Sequence[RunSummary], folder: Path) -> list[Path]:
    """Draw accuracies and loss of all ``runs`` by epoch into ``folder``, as PNG and SVG; return the files, if any.

    Raises ModuleNotFoundError without matplotlib.
    """
    from dkl.reporting.figures.curves import PANELS, dynamics, panels
    from dkl.reporting.figures.style import save

    hashes = [run.hash for run in runs]
    labels = [f"{run.name} {differs}" for run, differs in zip(runs, own_differences(runs), strict=True)]
    curves = {label: [run.metrics] for label, run in zip(labels, runs, strict=True)}
    shown = panels(curves, PANELS | {"loss": ("loss",)}, fewest=1)
    name = "-".join(hashes) if len(runs) <= LONGEST_NAME else digest(sorted(hashes))
    # Dots of many epochs would hide the dashes that tell runs of one method apart.
    draw = partial(dynamics, labels, shown, title="", dots=1)
    return save(draw, folder / f"compare-{name}") if shown else []


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def changed_keys(runs: Sequence[RunSummary]) -> list[str]:
    """Return the keys whose values are not the same in all ``runs``."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not key.startswith(IGNORED))
    return [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]


def own_differences(runs: Sequence[RunSummary]) -> list[str]:
    """Return, for each run, what is special about it, such as ``loss.wmse_weight=12``.

    A setting inside a group is compared among runs with the same choice of the group only: two losses have different
    arguments, which say no more than their names.
    """
    keys = [key for key in changed_keys(runs) if key not in (*WHERE, *NAMED) and not key.startswith("evaluation.")]
    special: list[list[str]] = [[] for _ in runs]
    for key in keys:
        heads = [repr(_head(run, key)) for run in runs]
        alike = group(enumerate(runs), lambda pair: heads[pair[0]])  # noqa: B023  # called now
        for same in alike.values():
            values = {repr(run.settings.get(key)) for _, run in same}
            if len(values) > 1:
                for place, run in same:
                    if key in run.settings:
                        special[place].append(f"{setting_name(key)}={value_text(run.settings[key])}")
    return [", ".join(texts) for texts in special]


def _head(run: RunSummary, key: str) -> Any:
    """Return the value that must be equal in two runs before ``key`` is worth comparing."""
    choice, _, rest = key.partition(".")
    heads = {"data": "data.name", "model": "model.name"}
    if not rest or key in (heads.get(choice), f"{choice}._target_", "budget.name"):
        return None  # the choice itself
    if choice in ("trainer", "optimizer", "schedule", "selection"):  # recipes set these
        return run.settings.get("recipe_name")
    return run.settings.get(heads.get(choice, f"{choice}._target_"))
