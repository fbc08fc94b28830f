"""Finds the bounded evaluation that an evaluation by the standard suite continues."""

import dataclasses
import glob

import numpy as np

from dkl import records
from dkl.errors import UserError
from dkl.evaluation.attacking import Earlier
from dkl.evaluation.job import EvaluationJob
from dkl.evaluation.robustness.attack_loop import AttackProgress, EvaluationState
from dkl.evaluation.robustness.bounded import SampleResult
from dkl.evaluation.robustness.checks import nonfinite_only
from dkl.records import Flags, Record
from dkl.records.sampling_bound import count_interval
from dkl.threat import AUTOATTACK, SAMPLED, SUITES


def earlier_evaluation(job: EvaluationJob) -> Earlier | None:
    """Return what a bounded evaluation of the same weights and images found; None if none is recorded."""
    protocol = job.protocol
    if protocol.attacks != list(AUTOATTACK) or protocol.package:
        return None
    bounded = dataclasses.replace(protocol, attacks=list(SUITES["bounded"]))
    for path in sorted(job.record.parent.glob(f"{glob.escape(job.id.removesuffix(job.key))}*.json")):
        try:
            record = records.load(path)
        except UserError:
            continue  # dkl tables reports it
        same = (
            bounded.made(record)
            and (record.checkpoint_sha256, record.config_hash) == (job.weights_sha256, job.config_hash)
            and (record.data_sha256, record.n) == (job.test.sha256, len(job.test))
        )
        if same:
            start, sample = _start_and_sample(record, records.load_flags(path))
            return Earlier(record.id, start, sample, tuple(nonfinite_only(record.warnings)))
    return None


def _start_and_sample(record: Record, flags: Flags) -> tuple[EvaluationState, SampleResult]:
    seconds = {name: result.seconds for name, result in record.per_attack.items()}
    seconds["clean"] = record.seconds - sum(seconds.values())
    finished: list[str] = [name for name in ("clean", "top5", "apgd-ce", "apgd-t") if name in flags]
    start: EvaluationState = {
        name: AttackProgress(flags[name], np.array([seconds.get(name, 0.0)]), np.zeros(1, dtype=np.int64))
        for name in finished
    }
    before, after = flags["apgd-t"], {name: flags[entry] for name, entry in SAMPLED.items()}
    fallen = int(before.sum() - after["square"].sum())
    sample = SampleResult(
        sampled=flags["sampled"],
        before=before,
        after=after,
        interval=count_interval(int(before.sum()), int(flags["sampled"].sum()), fallen),
        placed=frozenset({"square"} if record.norm == "Linf" else ()),
        seconds={name: seconds[entry] for name, entry in SAMPLED.items()},
    )
    return start, sample
