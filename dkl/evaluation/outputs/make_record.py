"""Makes the record of a finished evaluation, and its summary in one line."""

import math
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import torch

from dkl.errors import visible
from dkl.evaluation.corrupted import by_severity
from dkl.evaluation.job import EvaluationJob
from dkl.evaluation.outputs import provenance
from dkl.evaluation.outputs.long_tail import accuracy_per_shot
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.robustness.attack_loop import AttackProgress, EvaluationState
from dkl.evaluation.robustness.bounded import SampleResult
from dkl.evaluation.segmentation.pixel_counts import PixelCounts
from dkl.evaluation.subject import TrainedRun
from dkl.records import AttackResult, Bound, FewLabels, Flags, Record, Segmented, iou_of


def _accuracy(progress: AttackProgress) -> float:
    return float(progress.flags.mean())


def _step_seconds(run: TrainedRun) -> float | None:
    """The duration of a training step in the median epoch; None for runs that did not record their speed."""
    speeds = [row["images_per_second"] for row in run.metrics if "images_per_second" in row]
    return median(run.config.trainer.batch_size / speed for speed in speeds) if speeds else None


def _training_seconds(run: TrainedRun) -> float | None:
    """The duration of all epochs; None for runs that did not record it."""
    seconds = [row.get("epoch_seconds") for row in run.metrics]
    return sum(filter(None, seconds)) if seconds and None not in seconds else None


def _few_labels(job: EvaluationJob) -> FewLabels | None:
    run, per_class = job.subject.run, job.subject.data.labels_per_class
    if run is None or per_class is None or job.labeled_sha256 is None:
        return None
    return FewLabels(per_class=per_class, seed=run.config.seed, sha256=job.labeled_sha256)


def bound_of(sample: SampleResult, tolerance: float) -> Bound:
    """Return the interval of bounded AutoAttack that ``sample`` gives."""
    n, standing = len(sample.before), int(sample.before.sum())
    return Bound(
        low=(standing - sample.interval.high) / n, high=(standing - sample.interval.low) / n, tolerance=tolerance
    )


def flags_of(state: EvaluationState, sample: SampleResult | None) -> Flags:
    """Return the flags ``[n]`` of each attack, and which images were ``sampled`` if some were."""
    flags = {name: progress.flags for name, progress in state.items()}
    return flags | ({"sampled": sample.sampled} if sample is not None else {})


def measured(protocol: EvaluationProtocol, state: EvaluationState, sample: SampleResult | None) -> dict[str, Any]:
    """The fields of a record that hold what was measured. Seconds are summed over the batches of all processes."""
    results = {
        name: AttackResult(robust=_accuracy(state[name]), seconds=float(np.nansum(state[name].seconds)))
        for name in protocol.attacks
    }
    bound = None
    if sample is not None:
        assert protocol.tolerance is not None
        bound = bound_of(sample, protocol.tolerance)
    return {
        "clean": _accuracy(state["clean"]),
        # Attacks are cumulative, so the last one has the lowest accuracy.
        "robust": min((result.robust for result in results.values()), default=None),
        "per_attack": results,
        "seconds": float(sum(np.nansum(state[name].seconds) for name in ("clean", *protocol.attacks))),
        "bound": bound,
        "top5": _accuracy(state["top5"]) if "top5" in state else None,
    }


def described(protocol: EvaluationProtocol, device: torch.device) -> dict[str, Any]:
    """The fields of a record about its protocol, time, software and hardware."""
    settings = protocol.fields_of_record
    return {
        **settings,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": provenance.versions() | settings["versions"],
        "hardware": provenance.hardware(device),
        "git_commit": provenance.git_commit(),
    }


def make_record(
    job: EvaluationJob,
    state: EvaluationState,
    *,
    device: torch.device,
    warnings: list[str],
    sample: SampleResult | None = None,
    corrupted: EvaluationState | None = None,
) -> Record:
    """Make the record of ``job``, which ended in ``state``, and in ``corrupted`` on corrupted images."""
    fields = measured(job.protocol, state, sample)
    fields["seconds"] += float(sum(np.nansum(progress.seconds) for progress in (corrupted or {}).values()))
    return Record(
        **_common(job, device),
        **fields,
        warnings=[*job.warnings, *warnings],
        shots=accuracy_per_shot(state["clean"].flags, job.test.labels, job.train_counts),
        corruptions={name: flags.mean(1).tolist() for name, flags in by_severity(corrupted or {}).items()} or None,
    )


def make_segmentation_record(job: EvaluationJob, counts: PixelCounts, *, device: torch.device) -> Record:
    """Make the record of ``job``, which ended in ``counts``."""
    assert job.windows is not None
    iou = iou_of({"hits": counts.hits, "true": counts.true, "predicted": counts.predicted})
    names = map(visible, job.subject.data.class_names or map(str, range(len(iou))))
    result = Segmented(
        miou=float(np.nanmean(iou)),
        iou={name: None if math.isnan(value) else value for name, value in zip(names, iou.tolist(), strict=True)},
        prediction=job.windows.text,
    )
    return Record(
        **_common(job, device),
        clean=float(counts.hits.sum() / counts.true.sum()),
        robust=None,
        per_attack={},
        seconds=float(counts.seconds.sum()),
        segmented=result,
        warnings=list(job.warnings),
    )


def _common(job: EvaluationJob, device: torch.device) -> dict[str, Any]:
    """The fields of a record that do not depend on what was measured."""
    subject, run = job.subject, job.subject.run
    best, fields = subject.best, described(job.protocol, device)
    if run and len(run.devices) > 1:
        fields["hardware"] |= {"training_devices": list(run.devices)}
    fields |= {
        "id": job.id,
        "method": subject.method,
        "dataset": subject.data.name,
        "architecture": subject.architecture,
        "budget": subject.budget,
        "seed": subject.seed,
        "n": len(job.test),
        "additional_data": job.additional_data,
        "config_hash": job.config_hash,
        "model": subject.settings,
        "checkpoint": f"{subject.weights.path.parent.name}/{subject.weights.path.name}",
        "checkpoint_sha256": job.weights_sha256,
        "data_sha256": job.test.sha256,
        "training": run.settings if run else {},
        "weights": subject.weights.text,
        "synthetic": run.synthetic if run else None,
        "best": best.accuracy if best else None,
        "best_epoch": best.epoch if best else None,
        "partial": len(job.test) < job.test_images,
        "teacher": run.teacher if run else None,
        "few_labels": _few_labels(job),
        "step_seconds": _step_seconds(run) if run else None,
        "training_seconds": _training_seconds(run) if run else None,
    }
    return {name: _visible(value) for name, value in fields.items()}


def _visible(value: Any) -> Any:
    """Return ``value`` without control characters, which records refuse: names of files and folders may hold some."""
    if isinstance(value, dict):
        return {_visible(key): _visible(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_visible(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def summary(record: Record) -> str:
    """Return the accuracies of ``record`` in one line."""
    if record.segmented is not None:
        return f"mean IoU {record.segmented.miou:.2%}, pixel accuracy {record.clean:.2%}"
    if record.bound is not None:
        return f"clean {record.clean:.2%}, AutoAttack {record.bound.text} with 95 % confidence"
    values = {"clean": record.clean, "robust": record.robust}
    if record.accuracy_only:
        values = {"clean": record.clean, "top-5": record.top5, **(record.shots or {}), "corrupted": record.corrupted}
    line = ", ".join(f"{name} {value:.2%}" for name, value in values.items() if value is not None)
    if record.accuracy_only and record.best is not None:
        line += f"; best epoch, chosen on the test set: {record.best:.2%} (epoch {record.best_epoch})"
    return line
