"""The jobs of a manifest: one per row and seed, and each row's teacher before the row.

A teacher is trained once, at seed 0. Its students get ``task.teacher.name`` and ``task.teacher.run``, the folder of
that run. If the command gives ``task.teacher.checkpoint=FILE`` or ``task.teacher.run=FOLDER``, that teacher is used and
none is trained.

A row must stay what its name says, whatever overrides the command adds. Refused are keys that the rows set themselves,
what their evaluations set, and, at budgets ``paper`` and ``mini``, everything else that trains another row. At other
budgets such overrides become part of the label.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from dkl.config import compose_run, model_name
from dkl.config.identity import COMPUTING
from dkl.config.overrides import quoted
from dkl.errors import UserError, choose_from
from dkl.manifests.manifest import Manifest, ManifestRow, load
from dkl.storage.files import digest

TEACHER = "task.teacher."

SHARED = ("data", "trainer", "paths", "logger", "budget", "hydra")
"""Groups whose overrides in the command hold for teachers too: they set sizes and places. Others describe students."""

SHARED_WITH_EVALUATION = re.compile(r"paths\.|trainer\.devices?=")
"""Overrides of training that its evaluations need too, where ``trainer.device`` is called ``device``."""

_SAME_ROW = re.compile(
    rf"(paths|logger|evaluation|hydra)\b.*|trainer\.(device|threads|validate_every|workers|{'|'.join(COMPUTING)})"
)
"""Keys that never make another row."""

_NOT_IN_LABELS = re.compile(rf"(data|model|trainer|budget)\b.*|task\.teacher\.(checkpoint|run)|{_SAME_ROW.pattern}")
"""Keys that tables show in columns or titles of their own, or that no row depends on."""

LONGEST_LABEL = 100
"""Characters of a label, which is part of file names."""


@dataclass(frozen=True)
class ManifestJob:
    """One row at one seed: the overrides of ``dkl train``, and those of each ``dkl evaluate``.

    ``teacher`` is the title of the job that must be done first. ``changed``: the command's overrides make it another
    row than the manifest's, which the manifest's table and claims do not show.
    """

    name: str
    label: str
    seed: int
    train: tuple[str, ...]
    evaluations: tuple[tuple[str, ...], ...]
    teacher: str | None = None
    changed: bool = False

    @property
    def title(self) -> str:
        """Row and seed."""
        return f"{self.name} seed {self.seed}"

    def commands(self, run: str) -> str:
        """The commands that do this job by hand; ``run`` is the folder that training fills."""
        train = ["dkl", "train", *self.train]
        shared = [text.removeprefix("trainer.") for text in self.train if SHARED_WITH_EVALUATION.match(text)]
        evaluate = [["dkl", "evaluate", f"run={quoted(run)}", *overrides, *shared] for overrides in self.evaluations]
        return "\n".join(shlex.join(command) for command in [train, *evaluate])


@dataclass(frozen=True)
class Request:
    """Which part of a manifest to run: ``row`` and ``seeds`` (None for all of them), at ``budget`` (None for the
    manifest's sizes), with further ``overrides`` of ``dkl train``.
    """

    seeds: tuple[int, ...] | None = None
    budget: str | None = None
    row: str | None = None
    overrides: tuple[str, ...] = ()


def plan(name: str, request: Request) -> list[ManifestJob]:
    """List the jobs of the manifest ``name`` in order, each row's teacher before the row.

    At budget smoke only the first seed is run, unless the request names seeds. A row that the request's overrides
    change is labeled with them. Raises UserError if the experiment or the row is unknown, if all rows are quoted, if an
    override contradicts a row or changes it at budget paper or mini, or if one teacher is given for rows with different
    teachers.
    """
    manifest = load(name)
    named = rows_named(manifest, request.row)
    rows = [row for row in named if row.quoted is None]
    if not rows:
        what = f"{manifest.name} {request.row}" if request.row else manifest.name
        raise UserError(f"{what} is not run here: {named[0].quoted}; the tables show its published values")
    _check_overrides(manifest, rows, request.overrides)
    jobs = _jobs(manifest, rows, request)
    changing = may_change_rows(request.overrides)
    if not changing:
        return _once(jobs)
    before = _identities(_jobs(manifest, rows, replace(request, overrides=())))
    changed = [name for name, row in _identities(jobs).items() if row != before[name]]
    teachers = {manifest.teachers[row.teacher].name for row in rows if row.teacher}
    for name in sorted(changed, key=lambda name: name not in teachers):  # a teacher before its students
        budget = next(compose_run(job.train).cfg.budget.name for job in jobs if job.name == name)
        if budget in ("paper", "mini"):  # there a row is that of the manifest, or nothing
            raise UserError(
                f"{' '.join(changing)} changes what row {name} trains, which budget={budget} fixes: leave it out, or "
                "use budget=own (your own sizes, labeled with it, never compared with the paper)"
            )
    others = {*changed} - teachers  # no table shows a teacher
    for number, job in enumerate(jobs):
        if job.name in others:  # another row, whose label ends in what makes it one
            label = changed_label(job.label, request.overrides)
            jobs[number] = replace(
                job, label=label, train=_last_wins([*job.train, f"label={quoted(label)}"]), changed=True
            )
    return _once(jobs)


def _once(jobs: Sequence[ManifestJob]) -> list[ManifestJob]:
    """Leave out the later of two jobs without a teacher that train the same: a row may be the teacher of others."""
    titles: dict[tuple[str, ...], str] = {}
    done_by = {job.title: titles.setdefault(job.train, job.title) for job in jobs if job.teacher is None}
    kept = [job for job in jobs if done_by.get(job.title, job.title) == job.title]
    return [replace(job, teacher=done_by[job.teacher]) if job.teacher else job for job in kept]


def identities(manifest: Manifest, budget: str) -> dict[str, str]:
    """Per row that is run, and per teacher: the ``row_identity`` of its records at ``budget``."""
    return _identities(_jobs(manifest, manifest.runnable, Request((0,), budget)))


def _identities(jobs: Iterable[ManifestJob]) -> dict[str, str]:
    return {job.name: compose_run(job.train).row for job in jobs}


def _jobs(manifest: Manifest, rows: Sequence[ManifestRow], request: Request) -> list[ManifestJob]:
    """The jobs of ``rows`` with the request's overrides, whatever these change."""
    seeds = request.seeds or (manifest.seeds[:1] if request.budget == "smoke" else manifest.seeds)
    for_rows = [text for text in request.overrides if not text.startswith(TEACHER)]
    teachers = _teachers(manifest, rows, request)
    jobs: list[ManifestJob] = []
    for row in rows:
        teacher, of_teacher = teachers[row.teacher] if row.teacher else (None, [])
        if teacher is not None and teacher not in jobs:
            jobs.append(teacher)
        needs = teacher.title if teacher else None
        own = [*row_overrides(manifest, row, request.budget), *of_teacher, f"label={quoted(row.label)}"]
        for seed in seeds:
            train = _last_wins([*own, f"seed={seed}", *for_rows])
            jobs.append(ManifestJob(row.name, row.label, seed, train, _evaluations(manifest, row, request), needs))
    return jobs


_VALUE = re.compile(r"(?!trainer\.|model\.title|task\.teacher\.|data\.source\.)\w+(\.\w+)+")
"""Keys of values rather than groups, without those that may differ between records of one row."""


def may_train(manifest: Manifest, budget: str, trained: Sequence[Mapping[str, Any]]) -> Manifest:
    """Return the manifest without the rows that certainly train none of the ``trained`` configurations.

    Composing the configuration of a row takes about 0.1 s, and comparing its overrides with the records almost none.
    """

    def agrees(training: Mapping[str, Any], key: str, value: str) -> bool:
        first, *rest = key.split(".")
        kept: Any = training.get(first)
        for part in rest:
            kept = kept.get(part) if isinstance(kept, Mapping) else None
        # Older records lack groups that were added since: they may still belong to the row.
        return first not in training or bool(OmegaConf.from_dotlist([f"value={value}"]).value == kept)

    def is_candidate(row: ManifestRow) -> bool:
        given: dict[str, str] = {}
        for text in ("recipe=quick", *row_overrides(manifest, row, budget)):
            key, _, value = text.lstrip("+~").partition("=")
            # Later overrides replace earlier ones, as in Hydra; ~ deletes.
            given.pop(key, None)
            if not text.startswith("~"):
                given[key] = value
        # Values that can be compared without composing.
        values = {key: text for key, text in given.items() if _VALUE.fullmatch(key) and "${" not in text}
        values["recipe_name"] = given["recipe"]
        return any(all(agrees(training, *item) for item in values.items()) for training in trained)

    return replace(manifest, rows=tuple(filter(is_candidate, manifest.runnable)))


def own_sizes(manifest: Manifest, budget: str | None) -> bool:
    """Whether ``budget`` means the manifest's own sizes: they are ``own`` unless the manifest names another budget."""
    named = any(text.startswith("budget=") for text in (*manifest.overrides, *manifest.sizes))
    return budget is None or (budget == "own" and not named)


def row_overrides(manifest: Manifest, row: ManifestRow, budget: str | None) -> list[str]:
    """Overrides of ``row`` at ``budget``: those of all rows, of the size, of the row, and what ``at`` adds."""
    sizes = manifest.sizes if own_sizes(manifest, budget) else [f"budget={budget}"]
    return [*manifest.overrides, *sizes, *row.overrides, *manifest.at.get(budget or "", ())]


def may_change_rows(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that may make another row."""
    return [text for text in overrides if not _SAME_ROW.fullmatch(_key(text))]


def changed_label(label: str, overrides: Sequence[str]) -> str:
    """Return the label of a row that ``overrides`` have changed: they follow its own label."""
    shown = [text for text in overrides if not _NOT_IN_LABELS.fullmatch(_key(text))]
    # OmegaConf would resolve an interpolation in the label.
    text = " ".join([label, *shown]).replace("$", "")
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 9]} {digest(text)}"


def rows_named(manifest: Manifest, name: str | None) -> list[ManifestRow]:
    """The row ``name``, or all rows. Raises UserError if there are none."""
    rows = [row for row in manifest.rows if name in (None, row.name)]
    if not rows:
        known = [row.name for row in manifest.rows]
        raise UserError(f"{manifest.name} has no row {name!r}: {choose_from(str(name), known)}")
    return rows


def _check_overrides(manifest: Manifest, rows: Sequence[ManifestRow], overrides: Sequence[str]) -> None:
    """Raise UserError if an override contradicts what ``rows`` say about themselves and their evaluations."""
    for text in overrides:
        name = _key(text)
        if name == "label":
            raise UserError(
                f"{text}: the rows of {manifest.name} have their own labels; leave it out, or use dkl train {text}"
            )
        if name in ("attacks", "eps", "n", "norm", "weights"):  # often tried here
            raise UserError(
                f"{text} is an option of dkl evaluate: leave it out here, then dkl evaluate run=FOLDER {text}"
            )
        for row in rows:
            if own := _sets(row.overrides, name):
                raise UserError(
                    f"{text} contradicts row {row.name}, which is {own}: leave it out, or change the dkl train command "
                    "that dry_run=true prints"
                )
            evaluated = [f"evaluation.{setting}" for entry in manifest.evaluations(row) for setting in entry]
            if own := _sets(evaluated, name):
                option = own.removeprefix("evaluation.")
                raise UserError(
                    f"{text}: {manifest.name} evaluates row {row.name} with {option}; leave it out, then use "
                    f"dkl evaluate run=FOLDER {_key(option)}=…"
                )


def _key(override: str) -> str:
    """Return the key of an override, such as ``loss`` of ``+loss=ikl``."""
    return re.split("[=@]", override.lstrip("+~"))[0]


def _sets(overrides: Sequence[str], name: str) -> str | None:
    """Return the override that sets the key ``name`` or a key below it; None if there is none."""
    return next((text for text in overrides if f"{_key(text)}.".startswith(f"{name}.")), None)


def _evaluations(manifest: Manifest, row: ManifestRow, request: Request) -> tuple[tuple[str, ...], ...]:
    """Overrides of each evaluation of ``row``. Budgets have their own test images: ``n`` is for the own sizes only."""
    chosen = manifest.evaluations(row)
    if own_sizes(manifest, request.budget):
        return chosen
    return tuple(tuple(text for text in entry if not text.startswith("n=")) for entry in chosen)


def _teachers(
    manifest: Manifest, rows: Sequence[ManifestRow], request: Request
) -> dict[str, tuple[ManifestJob | None, list[str]]]:
    """Per teacher of ``rows``: the job that trains it (None if its weights exist), and its students' overrides."""
    needed = list(dict.fromkeys(row.teacher for row in rows if row.teacher))
    requested = [text for text in request.overrides if text.startswith(TEACHER)]
    weights = [text for text in requested if text.partition("=")[0] in (f"{TEACHER}checkpoint", f"{TEACHER}run")]
    if weights and len(needed) > 1:
        raise UserError(f"{weights[0]} is one teacher, but these rows have {', '.join(needed)}: add row=NAME")
    shared = [text for text in request.overrides if re.split(r"[.=]", text.lstrip("+~"))[0] in SHARED]
    teachers: dict[str, tuple[ManifestJob | None, list[str]]] = {}
    for name in needed:
        row = manifest.teachers[name]
        if row.weights and request.budget not in row.trained_at:
            teachers[name] = (None, [*row.weights, *requested])
            continue
        label = next((each.label for each in manifest.runnable if each.overrides == row.overrides), "Teacher")
        own = [*row_overrides(manifest, row, request.budget), f"label={quoted(label)}"]
        train = _last_wins([*own, "seed=0", *shared])
        run = compose_run(train)
        job = None if weights else ManifestJob(row.name, label, 0, train, _evaluations(manifest, row, request))
        folder = [] if weights else [f"{TEACHER}run={quoted(str(run.folder))}"]
        teachers[name] = (job, [f"{TEACHER}name={model_name(run.cfg.model)}", *folder, *requested])
    return teachers


def _last_wins(overrides: Iterable[str]) -> tuple[str, ...]:
    """The last override of each key: Hydra refuses two choices for one group."""
    return tuple({override.partition("=")[0]: override for override in overrides}.values())
