"""How far a job is, from the files it leaves: a line of metrics an epoch, a record an evaluation."""

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
    """``epochs`` of ``of_epochs`` trained, and ``records`` of ``of_records`` there.

    ``wanted`` says that others need the run itself, which its records alone do not replace.
    """

    epochs: int
    of_epochs: int
    records: int
    of_records: int
    wanted: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left; a run whose records are kept need not be kept itself, unless it is wanted."""
        return self.records == self.of_records and (not self.wanted or self.epochs == self.of_epochs)

    def __str__(self) -> str:
        if self.done:
            return "done"
        if self.epochs == self.of_epochs:
            return f"trained, {self.records} of {self.of_records} evaluations"
        return f"to resume, epoch {self.epochs} of {self.of_epochs}" if self.epochs else "to do"


def _asked(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What an evaluation of the run ``cfg`` measures."""
    settings = dict(cfg.evaluation) | dict(OmegaConf.from_dotlist(list(overrides)))
    weights = settings["weights"] or ("average" if cfg.averaging else "last")
    attacks = parse_attacks(settings["attacks"])
    eps = parse_eps(settings["eps"]) if attacks else 0.0
    keys = ("n", "batch_size", "seed", "norm")
    return {"attacks": attacks, "eps": eps, "weights": weights} | {key: settings[key] for key in keys}


def _is_of(record: Record, asked: dict[str, Any]) -> bool:
    """Whether ``record``, of the same run, is the evaluation asked for."""
    same = (
        record.attacks == asked["attacks"]
        and record.weights.split(" ")[0] == asked["weights"]
        and abs(record.eps - asked["eps"]) < 1e-9
        and (not asked["attacks"] or record.norm.lower() == asked["norm"].lower())
        and (record.batch_size, record.evaluation_seed) == (asked["batch_size"], asked["seed"])
    )
    return same and (record.n == asked["n"] if record.partial else asked["n"] is None)


def _is_by(record: Record, cfg: DictConfig) -> bool:
    """Whether ``record`` is of the run ``cfg``, or of one that a table takes for it; which teacher matters."""
    if record.config_hash == config_hash(cfg):
        return True
    taught = OmegaConf.select(cfg, "task.teacher") is not None
    alike = not taught and record.seed == cfg.seed and record.budget == cfg.budget.name
    return alike and record.row == row_identity(hashed(cfg))


def standing(job: ManifestJob, cfg: DictConfig, records: Sequence[Record]) -> JobProgress:
    """How far ``job`` of configuration ``cfg`` is, where there are ``records``."""
    mine = [record for record in records if _is_by(record, cfg)]
    found = sum(any(_is_of(record, _asked(cfg, entry)) for record in mine) for entry in job.evaluations)
    metrics = run_folder(cfg) / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) if metrics.is_file() else 0
    return JobProgress(epochs, cfg.trainer.epochs, found, len(job.evaluations))
