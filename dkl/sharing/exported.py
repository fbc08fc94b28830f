"""The input of every format of an export: a finished run's network with its weights, and their records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dkl.config import EvaluateConfig, model_name
from dkl.errors import UserError
from dkl.evaluation.network import load_network
from dkl.evaluation.subject import Subject, TrainedRun, run_subject
from dkl.evaluation.weights import weights_sha256
from dkl.records import Record
from dkl.reporting.grouping import created_at, load_with_reference


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A run's network in eval mode on the CPU, with the weights of ``subject``, and all records of these weights."""

    subject: Subject
    model: nn.Module
    sha256: str
    records: list[Record]

    @property
    def run(self) -> TrainedRun:
        """The run."""
        assert self.subject.run is not None
        return self.subject.run

    @property
    def name(self) -> str:
        """The name of the network for others: data, architecture, method and seed."""
        return f"{self.subject.data.name}-{model_name(self.subject.model)}-{self.run.label}-s{self.run.config.seed}"

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights, each tensor with memory of its own."""
        return {key: value.detach().clone().contiguous() for key, value in self.model.state_dict().items()}

    @property
    def normalization(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation by which the network normalizes its input; None if it takes [0, 1] as it is."""
        mean, std = self.subject.model.get("mean"), self.subject.model.get("std")
        return (list(mean), list(std)) if mean is not None and std is not None else None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the network's constructor, but for classes, channels, normalization and names."""
        known = ("_target_", "name", "title", "num_classes", "in_chans", "mean", "std")
        return {key: value for key, value in self.subject.model.items() if key not in known and value is not None}


def read_run(run: Path, *, weights: str | None, results: Path) -> Exported:
    """Load the network of the finished run in folder ``run``, and its records in ``results``.

    Raises UserError if there is no such run, if it is not finished, or if it labels pixels.
    """
    subject = run_subject(EvaluateConfig(run=str(run), weights=weights))
    if subject.data.ignore_index is not None:
        raise UserError(f"run={run} labels pixels, and only networks that label images can be exported")
    model, _ = load_network(subject)
    sha256 = weights_sha256(model.state_dict())
    found, _ = load_with_reference(results)
    assert subject.run is not None
    own = [r for r in found if r.checkpoint_sha256 == sha256 and r.config_hash == subject.run.config_hash]
    return Exported(subject=subject, model=model, sha256=sha256, records=sorted(own, key=created_at))
