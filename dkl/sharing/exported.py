"""The input of every format of an export: a finished run's network with its weights and records, and its card.

The card says what the network is, how it was trained, and what was measured, from records only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from dkl.config import EvaluateConfig, model_name
from dkl.errors import UserError
from dkl.evaluation.subject import Subject, TrainedRun, load_network, run_subject
from dkl.records import Record
from dkl.records.metrics import METRICS, wilson
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.formats import render
from dkl.reporting.grouping import attacks_label, created_at, load_with_reference
from dkl.reporting.robustbench import paper
from dkl.reporting.statistics import percent
from dkl.storage.checkpoint import weights_sha256
from dkl.threat import SAMPLED

HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "imagenet": "ILSVRC/imagenet-1k"}
"""Ids of datasets on the Hugging Face hub."""


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
    def identity(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of a normalization that changes nothing."""
        channels = self.subject.data.shape[0]
        return [0.0] * channels, [1.0] * channels

    @property
    def example(self) -> Tensor:
        """A batch of black images, of the size for which the network is exported."""
        return torch.zeros(2, *self.subject.data.shape)


def read_run(run: Path, *, weights: str | None, results: Path) -> Exported:
    """Load the network of the finished run in folder ``run``, and its records in ``results``.

    Raises UserError if there is no such run, if it is not finished, or if it labels pixels.
    """
    subject = run_subject(EvaluateConfig(run=str(run), weights=weights))
    if subject.data.ignore_index is not None:
        raise UserError(f"run={run} labels pixels, and only networks that label images can be exported")
    model, _ = load_network(subject)
    sha256 = weights_sha256(model.state_dict())
    assert subject.run is not None
    records = [
        record
        for record in load_with_reference(results)[0]
        if record.checkpoint_sha256 == sha256 and record.config_hash == subject.run.config_hash
    ]
    return Exported(subject=subject, model=model, sha256=sha256, records=sorted(records, key=created_at))


def model_card(exported: Exported, folder: str, *, timm_name: str | None = None) -> str:
    """Return the card as Markdown with the hub's metadata. ``timm_name`` is the architecture if timm can load it."""
    rows: list[tuple[object, ...]] = []
    for record in exported.records:
        for name, value in _accuracies(record):
            low, high = map(percent, wilson(value, record.n))
            rows.append((name, record.n, percent(value), f"[{low}, {high}]"))
        if record.bound is not None:
            interval = f"[{percent(record.bound.low)}, {percent(record.bound.high)}]"
            rows.append((_attacked(record), record.n, "within the interval", interval))
    return render(
        "formats/card.md.j2",
        exported=exported,
        subject=exported.subject,
        run=exported.run,
        folder=folder,
        timm_name=timm_name,
        registered=type(exported.model).__module__.startswith("dkl."),
        metadata=OmegaConf.to_yaml(_metadata(exported)),
        rows=list(dict.fromkeys(rows)),
        meaning=BUDGET_NOTES[exported.subject.budget],
        commits=sorted({record.git_commit for record in exported.records if record.git_commit}),
        paper=paper(exported.run.label),
    )


def _accuracies(record: Record) -> Iterator[tuple[str, float]]:
    """Yield each accuracy over all images of ``record``; the name says if they are a part of the test set."""
    part = f" on {record.n} images" if record.partial else ""
    for name, metric in METRICS.items():
        value = metric.measured(record)
        if metric.flags and name != "robust" and value is not None:
            first, comma, more = metric.words.partition(",")
            yield f"{first}{part}{comma}{more}", value
    for name in record.attacks:
        # A bounded evaluation attacks only a sample with its last attacks.
        if record.bound is None or name not in SAMPLED.values():
            yield f"after {name}{part}, {record.norm} {record.eps_text}", record.per_attack[name].robust
    if record.robust is not None and record.bound is None:
        yield _attacked(record), record.robust


def _attacked(record: Record) -> str:
    return f"{attacks_label(record)}, {record.norm} {record.eps_text}"


def _metadata(exported: Exported) -> dict[str, Any]:
    """Return the hub's metadata of the card, with ``model-index``."""
    dataset = exported.subject.data.name
    about: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "dkl", "adversarial-robustness"],
    }
    if dataset in HUB_DATASETS:
        about["datasets"] = [HUB_DATASETS[dataset]]
    if exported.records and exported.subject.budget != "smoke":
        task = {"type": "image-classification", "name": "Image classification"}
        results = [
            {
                "task": task,
                "dataset": {"type": HUB_DATASETS.get(dataset, dataset), "name": dataset, "split": "test"},
                "metrics": [
                    {"type": "accuracy", "name": name, "value": float(percent(value))}
                    for name, value in _accuracies(record)
                ],
            }
            for record in exported.records
        ]
        about["model-index"] = [{"name": exported.name, "results": results}]
    return about
