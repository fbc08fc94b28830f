"""The plan of ``dkl reproduce``: its arguments, and every job with its configuration, progress and what it lacks.

The progress of a job is read from its files: one line of metrics per epoch, one record per evaluation.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config import CachedCompose, ComposedRun, DataConfig, TrainConfig
from dkl.config.overrides import HYDRA_OWN, explain, quoted
from dkl.config.schema import prediction_text
from dkl.console import say
from dkl.errors import NotInstalledError, UserError, choose_from, similar
from dkl.manifests import ManifestJob, Request, plan
from dkl.options import default_results, keys, parse_values
from dkl.records import Record, load_all
from dkl.reporting.grouping import group
from dkl.threat import changed_search, gives_result_of, parse_attacks, parse_eps

TRAIN = {field.name for field in fields(TrainConfig)} | {"recipe"}
"""Keys of ``dkl train`` without a dot."""


@dataclass(frozen=True)
class Options:
    """The manifest's ``name``, the part of it to run, and overrides of Hydra itself (``launcher``).

    ``html``: also draw all figures and write the results page. ``published``: evaluate the rows' published networks.
    """

    name: str
    request: Request
    launcher: tuple[str, ...] = ()
    dry_run: bool = False
    html: bool = False
    published: bool = False


def parse(arguments: list[str]) -> Options:
    """Parse ``KEY=VALUE`` arguments. Raises UserError if one has another form, or a value is wrong."""
    known = keys("reproduce")
    given: dict[str, str] = {}
    overrides: list[str] = []
    launcher: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise UserError(f"{argument!r} is not KEY=VALUE; dkl reproduce --help lists the options")
        if key in known:
            if not value:
                raise UserError(f"{argument} has no value; dkl reproduce --help lists the options")
            given[key] = value
        elif key.isalpha() and key not in TRAIN and similar(key, known):
            raise UserError(f"there is no option {key!r}: {choose_from(key, known)}, or an option of dkl train")
        else:
            (launcher if HYDRA_OWN.match(key) else overrides).append(argument)
    options = parse_values("reproduce", given)
    if options["budget"] == "smoke" and not any(text.startswith("paths.results=") for text in overrides):
        # Its own folder keeps its values apart from real results.
        overrides.append(f"paths.results={quoted(str(Path(default_results()) / 'smoke'))}")
    training = [*(f"{key}={given[key]}" for key in ("seed", "budget", "html") if key in given), *launcher]
    if options["weights"] and training not in ([], ["budget=paper"]):
        raise UserError(f"weights=published trains nothing: leave out {', '.join(training)}, or weights=published")
    named = [key for key in ("experiment", "table", "figure") if key in given]
    if len(named) > 1:
        texts = " and ".join(f"{key}={given[key]}" for key in named)
        raise UserError(f"{texts} name {len(named)} manifests: give one of them")
    name = options[named[0]] if named else "quickstart"
    request = Request(options["seed"], options["budget"], options["row"], tuple(overrides))
    return Options(
        name,
        request,
        tuple(launcher),
        dry_run=options["dry_run"],
        html=options["html"],
        published=bool(options["weights"]),
    )


@dataclass(frozen=True)
class JobProgress:
    """Trained ``epochs`` and finished ``evaluations``, each with its total.

    ``run_needed``: other jobs load this run's weights, so its records alone do not make it done.
    """

    epochs: int
    total_epochs: int
    evaluations: int
    total_evaluations: int
    run_needed: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do. A run whose records exist may have been deleted, unless it is needed."""
        evaluated = self.evaluations == self.total_evaluations
        return evaluated and (not self.run_needed or self.epochs == self.total_epochs)

    def __str__(self) -> str:
        if self.done:
            return "done"
        if self.epochs == self.total_epochs:
            return f"trained, {self.evaluations} of {self.total_evaluations} evaluations"
        return f"to resume, epoch {self.epochs} of {self.total_epochs}" if self.epochs else "to do"


def progress_of(job: ManifestJob, run: ComposedRun, records: Sequence[Record]) -> JobProgress:
    """The progress of ``job``, which trains ``run``, given the ``records`` of the results folder."""
    evaluations = len(records_of(job, run, records))
    metrics = run.folder / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) if metrics.is_file() else 0
    return JobProgress(epochs, run.settings.trainer.epochs, evaluations, len(job.evaluations))


def records_of(job: ManifestJob, run: ComposedRun, records: Sequence[Record]) -> list[Record]:
    """One of ``records`` for each finished evaluation of ``job``."""
    of_run = [record for record in records if _is_of_run(record, run)]
    wanted = [_settings(run.settings, overrides) for overrides in job.evaluations]
    matches = (next((record for record in of_run if _is_evaluation(record, settings)), None) for settings in wanted)
    return [record for record in matches if record]


def _is_of_run(record: Record, run: ComposedRun) -> bool:
    """Whether ``record`` is of ``run``, or of one that tables show in the same place.

    A student's row does not identify its teacher's weights, so a student needs the exact run.
    """
    config = run.settings
    if record.config_hash == run.config_hash:
        return True
    if config.task.get("teacher") is not None:
        return False
    return (record.seed, record.budget, record.row) == (config.seed, config.budget.name, run.row)


def _settings(config: TrainConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What an evaluation of the run of ``config`` with ``overrides`` measures."""
    others = {"corruptions": None, "package": False}
    settings = others | asdict(config.evaluation) | dict(OmegaConf.from_dotlist(list(overrides)))
    weights = settings["weights"] or ("average" if config.averaging else "last")
    attacks = parse_attacks(settings["attacks"])
    eps = parse_eps(settings["eps"]) if attacks else 0.0
    keys = ("n", "batch_size", "seed", "norm", "tolerance", "mirrored", "long_side", *others)
    search = changed_search(settings) if attacks else {}
    derived = {"attacks": attacks, "eps": eps, "weights": weights, "search": search}
    return derived | {key: settings[key] for key in keys}


def _is_evaluation(record: Record, settings: dict[str, Any]) -> bool:
    """Whether ``record``, of the right run, was made with ``settings``."""
    narrow = record.bound is None or record.bound.tolerance <= settings["tolerance"]
    prediction = prediction_text(mirrored=settings["mirrored"], long_side=settings["long_side"])
    same = (
        gives_result_of(record.attacks, settings["attacks"])
        and narrow
        and record.search == settings["search"]
        and record.weights.split(" ")[0] == settings["weights"]
        and abs(record.eps - settings["eps"]) < 1e-9
        and (not settings["attacks"] or record.norm.lower() == settings["norm"].lower())
        and (record.batch_size, record.evaluation_seed) == (settings["batch_size"], settings["seed"])
        and (record.segmented is None or record.segmented.prediction.endswith(f", {prediction}"))
        # An evaluation that also has corruptions, or that ran the authors' code, has the same accuracies.
        and (not settings["corruptions"] or record.corruptions is not None)
        and (not settings["package"] or record.versions.get("attacks") == "pyautoattack")
    )
    return same and (not record.partial if settings["n"] is None else record.n == settings["n"])


@dataclass(frozen=True)
class PlannedJob:
    """A job with its configuration and progress; ``missing_library`` is the error if an optional library is missing."""

    job: ManifestJob
    run: ComposedRun
    progress: JobProgress
    missing_library: str | None = None

    @property
    def title(self) -> str:
        """Row and seed."""
        return self.job.title

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.progress.done


def plan_jobs(options: Options) -> list[PlannedJob]:
    """List every job with its checked configuration. Raises UserError if a configuration is wrong."""
    from dkl.assembly import on_launched

    compose = CachedCompose()
    composed: list[tuple[ManifestJob, ComposedRun, str | None]] = []
    checked: dict[tuple[str, ...], str | None] = {}
    try:
        for job in plan(options.name, options.request, compose):
            run = ComposedRun(on_launched(compose(job.train).cfg))
            row = tuple(text for text in job.train if not text.startswith("seed="))
            if row not in checked:  # the check builds the networks: once per row, not per seed
                checked[row] = _check(run, job)
            composed.append((job, run, checked[row]))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain("train", error) from None
    records, _ = load_all(Path(composed[0][1].settings.paths.results) / "records")
    jobs = [PlannedJob(job, run, progress_of(job, run, records), missing) for job, run, missing in composed]
    needed = {planned.job.teacher for planned in jobs if not planned.done}
    return [
        replace(planned, progress=replace(planned.progress, run_needed=True)) if planned.title in needed else planned
        for planned in jobs
    ]


def _check(run: ComposedRun, job: ManifestJob) -> str | None:
    """Check a configuration; return the error if a library is missing. Raises UserError if it is wrong."""
    from dkl.assembly import preflight

    try:
        preflight((run.with_untrained_teacher() if job.teacher or run.downloads_teacher else run).cfg)
    except NotInstalledError as error:
        return str(error)
    return None


def find_blocked(jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Titles of the jobs whose images or libraries are missing, with the reason, which is printed.

    It is called before the first job: a table may take weeks, and its last row should not fail then.
    """
    blocked: dict[str, str] = {}
    datasets: dict[str, str | None] = {}
    for planned in (planned for planned in jobs if not planned.done):
        key = OmegaConf.to_yaml(planned.run.cfg.data, resolve=True)
        if key not in datasets:
            datasets[key] = _missing_images(planned.run.settings.data)
        if reason := planned.missing_library or datasets[key]:
            blocked[planned.title] = reason
    for reason, titles in group(blocked, blocked.__getitem__).items():
        say(f"cannot run {', '.join(titles)}: {reason}")
    return blocked


def _missing_images(data: DataConfig) -> str | None:
    """The error if the images of ``data`` cannot be loaded or downloaded."""
    from dkl.assembly import load_data, load_synthetic

    try:
        load_synthetic(data)
        load_data(data)
    except UserError as error:
        return str(error)
    return None
