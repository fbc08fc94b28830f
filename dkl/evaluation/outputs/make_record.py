"""What an evaluation found, as a record and as a line."""

from datetime import UTC, datetime
from statistics import median

import torch

from dkl.config import model_name
from dkl.evaluation.robustness.progress import AttackProgress, State
from dkl.evaluation.robustness.suites import PACKAGE_NORMS
from dkl.evaluation.job import EvaluationJob
from dkl.evaluation.outputs import provenance
from dkl.evaluation.outputs.long_tail import per_shot
from dkl.evaluation.subject import Subject
from dkl.records import AttackResult, Record


def _accuracy(standing: AttackProgress) -> float:
    return float(standing.flags.mean())


def _step_seconds(subject: Subject) -> float | None:
    """What a step took in the run's median epoch: batch size over images a second; None where that is not known."""
    speeds = [row["images_per_second"] for row in subject.rows if "images_per_second" in row]
    return median(subject.cfg.trainer.batch_size / speed for speed in speeds) if speeds else None


def make_record(
    job: EvaluationJob, state: State, *, additional_data: bool, device: torch.device, warnings: list[str]
) -> Record:
    """The record of ``job``, which ended in ``state``; its seconds are those of all batches of all processes."""
    subject, protocol = job.subject, job.protocol
    weights = subject.weights
    results = {
        name: AttackResult(robust=_accuracy(state[name]), seconds=float(state[name].seconds.sum()))
        for name in protocol.attacks
    }
    return Record(
        id=job.id,
        method=subject.method,
        dataset=subject.cfg.data.name,
        architecture=model_name(subject.cfg.model),
        budget=subject.budget,
        seed=subject.seed,
        norm=PACKAGE_NORMS[protocol.norm],
        eps=protocol.eps,
        eps_text=protocol.eps_text,
        attacks=protocol.attacks,
        n=len(job.test),
        clean=_accuracy(state["clean"]),
        robust=min((result.robust for result in results.values()), default=None),
        per_attack=results,
        evaluation_seed=protocol.seed,
        batch_size=protocol.batch_size,
        additional_data=additional_data,
        config_hash=subject.config_hash,
        checkpoint=f"{weights.path.parent.name}/{weights.path.name}",
        checkpoint_sha256=job.weights_sha256,
        data_sha256=job.test.sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=float(sum(state[name].seconds.sum() for name in ("clean", *protocol.attacks))),
        versions=provenance.versions(),
        hardware=provenance.hardware(device),
        git_commit=provenance.git_commit(),
        training=subject.training or {},
        warnings=warnings,
        weights=weights.text,
        synthetic=subject.synthetic,
        top5=_accuracy(state["top5"]) if "top5" in state else None,
        shots=per_shot(state["clean"].flags, job.test.labels, job.train_counts),
        best=subject.best.accuracy if subject.best else None,
        best_epoch=subject.best.epoch if subject.best else None,
        partial=protocol.n is not None,
        teacher=subject.teacher,
        step_seconds=_step_seconds(subject),
    )


def summary(record: Record) -> str:
    """The figures of ``record`` in a line."""
    figures = {"clean": record.clean, "top-5": record.top5, **(record.shots or {})} if record.accuracy_only else {}
    figures = figures or {"clean": record.clean, "robust": record.robust}
    line = ", ".join(f"{name} {value:.2%}" for name, value in figures.items() if value is not None)
    if record.accuracy_only and record.best is not None:
        line += f"; best epoch, chosen on the test set: {record.best:.2%} (epoch {record.best_epoch})"
    return line
