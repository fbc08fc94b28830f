"""The progress of a job, read from its files: one line of metrics per epoch, one record per evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl.config import config_hash, hashed, row_identity, run_folder
from dkl.manifests import ManifestJob
from dkl.records import Record
from dkl.threat import parse_attacks, parse_eps


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


def progress_of(job: ManifestJob, cfg: DictConfig, records: Sequence[Record]) -> JobProgress:
    """The progress of ``job``, whose configuration is ``cfg``, given the ``records`` of the results folder."""
    own = [record for record in records if _is_of_run(record, cfg)]
    found = sum(any(_is_evaluation(record, _settings(cfg, entry)) for record in own) for entry in job.evaluations)
    metrics = run_folder(cfg) / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) if metrics.is_file() else 0
    return JobProgress(epochs, cfg.trainer.epochs, found, len(job.evaluations))


def _is_of_run(record: Record, cfg: DictConfig) -> bool:
    """Whether ``record`` is of the run ``cfg``, or of one that tables show in the same place.

    A student's row does not identify its teacher's weights, so a student needs the exact run.
    """
    if record.config_hash == config_hash(cfg):
        return True
    if OmegaConf.select(cfg, "task.teacher") is not None:
        return False
    same_place = record.seed == cfg.seed and record.budget == cfg.budget.name
    return same_place and record.row == row_identity(hashed(cfg))


def _settings(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What an evaluation of the run ``cfg`` with ``overrides`` measures."""
    settings = dict(cfg.evaluation) | dict(OmegaConf.from_dotlist(list(overrides)))
    weights = settings["weights"] or ("average" if cfg.averaging else "last")
    attacks = parse_attacks(settings["attacks"])
    eps = parse_eps(settings["eps"]) if attacks else 0.0
    keys = ("n", "batch_size", "seed", "norm")
    return {"attacks": attacks, "eps": eps, "weights": weights} | {key: settings[key] for key in keys}


def _is_evaluation(record: Record, settings: dict[str, Any]) -> bool:
    """Whether ``record``, of the right run, was made with ``settings``."""
    same = (
        record.attacks == settings["attacks"]
        and record.weights.split(" ")[0] == settings["weights"]
        and abs(record.eps - settings["eps"]) < 1e-9
        and (not settings["attacks"] or record.norm.lower() == settings["norm"].lower())
        and (record.batch_size, record.evaluation_seed) == (settings["batch_size"], settings["seed"])
    )
    return same and (record.n == settings["n"] if record.partial else settings["n"] is None)
