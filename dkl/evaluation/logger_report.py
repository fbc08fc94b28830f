"""Reports an evaluation to a logger, as a run of its own in the group of its training run."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from dkl.config import row_identity
from dkl.evaluation.job import EvaluationJob
from dkl.loggers import LoggerRun, LoggerTable, opened
from dkl.records import Flags, Record, load, load_flags
from dkl.records.metrics import METRICS
from dkl.runtime.distributed import rank
from dkl.storage.files import damage


@contextmanager
def report_evaluation(job: EvaluationJob) -> Iterator[None]:
    """Report the evaluation that runs in the body and writes the record of ``job``.

    The logger opens before the attacks, so that a logger that cannot open fails before any work. A record that already
    exists is reported if it has not been.
    """
    about = _logger_run(job)
    if job.logger is None or rank() > 0 or (job.written.exists() and job.logger.reported(about)):
        yield
        return
    with opened(job.logger, about) as logger:
        yield
        record = load(job.written)
        attacks = [[name, result.robust, result.seconds] for name, result in record.per_attack.items()]
        tables = {"attacks": LoggerTable(["attack", "accuracy", "seconds"], [["none", record.clean, None], *attacks])}
        if record.segmented is not None:
            tables = {"classes": LoggerTable(["class", "iou"], [list(row) for row in record.segmented.iou.items()])}
        else:
            tables["classes"] = _class_table(record, load_flags(job.written), job.test.labels.numpy())
        values = {metric.key or name: metric.value(record) for name, metric in METRICS.items() if metric.unit == "%"}
        values |= {"best_epoch": record.best_epoch, "evaluation_seconds": record.seconds}
        values |= {f"corrupted/{name}": sum(each) / len(each) for name, each in (record.corruptions or {}).items()}
        values |= {f"robust_after/{name}": result.robust for name, result in record.per_attack.items()}
        if job.subject.run and record.step_seconds:
            trainer = job.subject.run.config.trainer
            steps = trainer.steps_per_epoch or math.ceil(int(job.train_counts.sum()) / trainer.batch_size)
            values |= {"step_seconds": record.step_seconds, "epoch_seconds": steps * record.step_seconds}
        known = {name: value for name, value in values.items() if value is not None}
        logger.report(known, tables, _image_strips(job))


def _logger_run(job: EvaluationJob) -> LoggerRun:
    """Describe the logger's run of this evaluation."""
    subject, run = job.subject, job.subject.run
    # The group is the training run's, also if the evaluation was given another label.
    method, folder = (run.label, run.folder) if run else (subject.method, job.state.parent)
    row = row_identity(run.settings) if run else job.weights_sha256[:8]
    # Tags let a user filter by method, loss, data and budget; equal ones are merged below.
    tags = [subject.method, *([run.loss] if run else []), subject.data.name, subject.budget]
    evaluation = job.protocol.settings | {
        "attacks": ", ".join(job.protocol.attacks) or "none",
        "weights": subject.weights.text,
        "n": len(job.test),
    }
    return LoggerRun(
        name=job.id,
        job_type="evaluate",
        group=f"{method}-{row}",
        tags=list(dict.fromkeys(tags)),
        config=(run.settings | {"loss_name": run.loss} if run else {})
        | {"method": subject.method, "evaluation": evaluation},
        folder=folder,
        key=job.key,
    )


def _class_table(record: Record, flags: Flags, labels: NDArray[np.integer]) -> LoggerTable:
    """Return the clean and robust accuracy of each class; robust is None without attacks."""
    attacks = [flags[name] for name in record.attacks]
    robust = np.logical_and.reduce(attacks) if attacks else None
    rows = []
    for label in np.unique(labels):
        members = labels == label
        robust_accuracy = None if robust is None else float(robust[members].mean())
        rows.append([int(label), int(members.sum()), float(flags["clean"][members].mean()), robust_accuracy])
    return LoggerTable(["class", "images", "clean", "robust"], rows)


def _image_strips(job: EvaluationJob) -> dict[str, NDArray[np.floating]]:
    """Return one picture per collected attack: rows of natural images, adversarial images and their differences.

    Only pictures of the same weights and threat model are used.
    """
    found, wanted = {}, (job.weights_sha256, job.protocol.norm, job.protocol.eps)
    for path in sorted((job.results / "figures" / "data").glob("*.npz")):
        if damage(path):
            continue
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
            if (about["checkpoint_sha256"], about["norm"], about["eps"]) == wanted:
                natural, adversarial = content["natural_images"], content["adversarial_images"]
                change = 0.5 + (adversarial - natural) / (2 * about["eps"])  # no change is gray
                rows = [np.concatenate(list(images), axis=-1) for images in (natural, adversarial, change)]
                found[f"images/{', '.join(about['attacks'])}"] = np.concatenate(rows, axis=-2).transpose(1, 2, 0)
    return found
