"""The plan of ``dkl reproduce``: its arguments, and every job with its configuration, progress and what it lacks.

The progress of a job is read from its files: one line of metrics per epoch, one record per evaluation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config import ComposedRun, EvaluateConfig, TrainConfig, compose_run
from dkl.config.overrides import HYDRA_OWN, explain, quoted
from dkl.config.schema import prediction_text
from dkl.errors import NotInstalledError, UserError, choose_from, similar
from dkl.evaluation.protocol import choose_protocol
from dkl.manifests import ManifestJob, Request, plan
from dkl.options import default_results, keys, parse_options
from dkl.records import Record, load_all
from dkl.threat import gives_result_of

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
    others: list[str] = []
    options, known = parse_options("reproduce", arguments, others), keys("reproduce")
    for key in (text.partition("=")[0] for text in others):
        if key.isalpha() and key not in TRAIN and similar(key, known):
            raise UserError(f"there is no option {key!r}: {choose_from(key, known)}, or an option of dkl train")
    launcher = tuple(text for text in others if HYDRA_OWN.match(text))
    overrides = [text for text in others if text not in launcher]
    if options["budget"] == "smoke" and not any(text.startswith("paths.results=") for text in overrides):
        # Its own folder keeps its values apart from real results.
        overrides.append(f"paths.results={quoted(str(Path(default_results()) / 'smoke'))}")
    training = [text for text in arguments if text.partition("=")[0] in ("seed", "budget", "html")]
    if options["weights"] and [*training, *launcher] not in ([], ["budget=paper"]):  # what make gives without BUDGET
        raise UserError(f"weights=published trains nothing: leave out {', '.join((*training, *launcher))}")
    named = sorted(text for text in arguments if text.partition("=")[0] in ("experiment", "table", "figure"))
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} name {len(named)} manifests: give one of them")
    name = options["experiment"] or options["table"] or options["figure"] or "quickstart"
    request = Request(options["seed"], options["budget"], options["row"], tuple(overrides))
    return Options(
        name,
        request,
        launcher,
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
    wanted = (_made_by(run.settings, overrides) for overrides in job.evaluations)
    matches = (next(filter(made, of_run), None) for made in wanted)
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


def _made_by(config: TrainConfig, overrides: Sequence[str]) -> Callable[[Record], bool]:
    """Whether a record of the right run, of ``config``, was made by ``dkl evaluate`` with ``overrides``."""
    given = {str(key): value for key, value in OmegaConf.from_dotlist(list(overrides)).items()}
    asked, usual = EvaluateConfig(**given), config.evaluation
    protocol = choose_protocol(asked, usual)
    weights = asked.weights or usual.weights or ("average" if config.averaging else "last")
    mirrored = usual.mirrored if asked.mirrored is None else asked.mirrored
    prediction = prediction_text(mirrored=mirrored, long_side=asked.long_side or usual.long_side)
    wanted = {key: protocol.fields_of_record[key] for key in ("norm", "eps", "evaluation_seed", "batch_size", "search")}

    def made(record: Record) -> bool:
        same = (
            gives_result_of(record.attacks, protocol.attacks)
            and all(getattr(record, key) == value for key, value in wanted.items())
            and (record.bound is None or record.bound.tolerance <= (protocol.tolerance or 0))
            and record.weights.split(" ")[0] == weights
            and (record.segmented is None or record.segmented.prediction.endswith(f", {prediction}"))
            # An evaluation that also has corruptions, or that ran the authors' code, has the same accuracies.
            and (not asked.corruptions or record.corruptions is not None)
            and (not asked.package or record.versions.get("attacks") == "pyautoattack")
        )
        return same and (not record.partial if protocol.n is None else record.n == protocol.n)

    return made


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
    from dkl.assembly import on_launched, preflight

    composed: list[tuple[ManifestJob, ComposedRun, str | None]] = []
    checked: dict[tuple[str, ...], str | None] = {}
    try:
        for job in plan(options.name, options.request):
            run = ComposedRun(on_launched(compose_run(job.train).cfg))
            row = tuple(text for text in job.train if not text.startswith("seed="))
            if row not in checked:  # the check builds the networks: once per row, not per seed
                checked[row] = None
                try:
                    preflight((run.with_untrained_teacher() if job.teacher or run.downloads_teacher else run).cfg)
                except NotInstalledError as error:
                    checked[row] = str(error)
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
