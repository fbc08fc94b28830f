"""The progress of a job, read from its files: one line of metrics per epoch, one record per evaluation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import OmegaConf

from dkl.config import ComposedRun, TrainConfig
from dkl.config.schema import prediction_text
from dkl.manifests import ManifestJob
from dkl.records import Record
from dkl.threat import changed_search, gives_result_of, parse_attacks, parse_eps


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
    found, config = len(records_of(job, run, records)), run.settings
    metrics = run.folder / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) if metrics.is_file() else 0
    return JobProgress(epochs, config.trainer.epochs, found, len(job.evaluations))


def records_of(job: ManifestJob, run: ComposedRun, records: Sequence[Record]) -> list[Record]:
    """One of ``records`` for each finished evaluation of ``job``."""
    own = [record for record in records if _is_of_run(record, run)]
    found = (_evaluation(own, _settings(run.settings, entry)) for entry in job.evaluations)
    return [record for record in found if record]


def _evaluation(records: Sequence[Record], settings: dict[str, Any]) -> Record | None:
    return next((record for record in records if _is_evaluation(record, settings)), None)


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
    found = {"attacks": attacks, "eps": eps, "weights": weights, "search": changed_search(settings) if attacks else {}}
    return found | {key: settings[key] for key in keys}


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
