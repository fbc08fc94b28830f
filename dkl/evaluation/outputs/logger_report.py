"""An evaluation as a run of its own, told to the logger of its training's run, or to another."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from dkl.assembly import build_logger
from dkl.config import label, loss_name, row_identity
from dkl.distributed import rank
from dkl.evaluation.job import EvaluationJob
from dkl.loggers import About, LoggerTable, opened, reported
from dkl.records import Flags, Record, load, load_flags


@contextmanager
def logged(job: EvaluationJob, cfg: DictConfig) -> Iterator[None]:
    """Report the evaluation that the body does, and that ends in the record of ``job``.

    ``cfg.logger`` says where to; where it is None, the run's own logger does. The logger opens before the attacks, so
    that one that cannot costs nothing. A record that was there already is reported where it has not been.
    """
    chosen = OmegaConf.select(job.subject.cfg, "logger") if cfg.logger is None else cfg.logger
    about = _about(job, cfg)
    if not chosen or rank() > 0 or (job.record.exists() and reported(about.id_file)):
        yield
        return
    with opened(build_logger(chosen), about) as logger:
        yield
        record = load(job.record)
        tables = {
            "attacks": _per_attack(record),
            "classes": _per_class(load_flags(job.record), job.test.labels.numpy()),
        }
        logger.report(_figures(record), tables, _strips(job))


def _about(job: EvaluationJob, cfg: DictConfig) -> About:
    subject = job.subject
    own = subject.training is not None
    method = label(subject.cfg) if own else subject.method  # a name given to the evaluation alone makes no other row
    tags = [subject.method, *([loss_name(subject.cfg)] if own else []), subject.cfg.data.name, subject.budget]
    evaluation = dataclasses.asdict(job.protocol) | {
        "attacks": ", ".join(job.protocol.attacks) or "none",
        "weights": subject.weights.text,
        "n": len(job.test),
    }
    folder = Path(cfg.run) if cfg.run else job.state.parent
    return About(
        name=job.id,
        job_type="evaluate",
        group=f"{method}-{row_identity(subject.training) if subject.training else job.weights_sha256[:8]}",
        tags=list(dict.fromkeys(tags)),
        config=(subject.training or {}) | {"method": subject.method, "evaluation": evaluation},
        id_file=folder / f"wandb_id_{job.key}.txt",
    )


def _figures(record: Record) -> dict[str, float]:
    """The accuracies of ``record`` that it has, by their names there."""
    figures = {name: getattr(record, name) for name in ("clean", "robust", "top5", "best", "best_epoch")}
    figures |= record.shots or {}
    return {name: value for name, value in figures.items() if value is not None}


def _per_attack(record: Record) -> LoggerTable:
    """What every attack left of those before it."""
    attacked = [[name, result.robust, result.seconds] for name, result in record.per_attack.items()]
    return LoggerTable(["attack", "accuracy", "seconds"], [["none", record.clean, None], *attacked])


def _per_class(flags: Flags, labels: NDArray[np.integer]) -> LoggerTable:
    """Accuracies of every class, natural and after all attacks; the best five classes are no attack."""
    attacks = [values for name, values in flags.items() if name not in ("clean", "top5")]
    robust = np.logical_and.reduce(attacks) if attacks else None
    rows = []
    for number in np.unique(labels):
        of = labels == number
        left = None if robust is None else float(robust[of].mean())
        rows.append([int(number), int(of.sum()), float(flags["clean"][of].mean()), left])
    return LoggerTable(["class", "images", "clean", "robust"], rows)


def _strips(job: EvaluationJob) -> dict[str, NDArray[np.floating]]:
    """Natural images above adversarial ones above the changes, where such were collected of weights and radius."""
    found, wanted = {}, (job.weights_sha256, job.protocol.norm, job.protocol.eps)
    for path in sorted((job.results / "figures" / "data").glob("*.npz")):
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
            if (about["checkpoint_sha256"], about["norm"], about["eps"]) == wanted:
                natural, adversarial = content["natural_images"], content["adversarial_images"]
                change = 0.5 + (adversarial - natural) / (2 * about["eps"])
                rows = [np.concatenate(list(images), axis=-1) for images in (natural, adversarial, change)]
                found[f"images/{', '.join(about['attacks'])}"] = np.concatenate(rows, axis=-2).transpose(1, 2, 0)
    return found
