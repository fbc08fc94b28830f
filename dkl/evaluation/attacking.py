"""Runs the attacks of a job: its suite on every image, or bounded AutoAttack, which may become the standard suite."""

import dataclasses
import glob
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dkl import records
from dkl.attacks import Perturb, frozen_eval
from dkl.console import say
from dkl.distributed import gather
from dkl.errors import UserError
from dkl.evaluation.job import EvaluationJob
from dkl.evaluation.robustness.attack_loop import AttackLoop, run_attacks
from dkl.evaluation.robustness.bounded import attack_sample
from dkl.evaluation.robustness.checks import nonfinite_only, nonfinite_warnings
from dkl.evaluation.robustness.progress import AttackProgress, EvaluationState, load, merge
from dkl.evaluation.robustness.sample_result import SampleResult
from dkl.evaluation.robustness.suites import make_attacks
from dkl.records import Flags, Record
from dkl.records.sampling_bound import count_interval
from dkl.threat import AUTOATTACK, SAMPLED, SUITES


class Attacked(NamedTuple):
    """What was done and found: a bounded ``job`` that had to attack every image has become the standard one.

    ``sample`` is what bounds the result of a bounded one; None for others. ``warnings`` are those of an earlier
    evaluation whose attacks were not run again.
    """

    job: EvaluationJob
    state: EvaluationState
    sample: SampleResult | None = None
    warnings: tuple[str, ...] = ()


def attack(job: EvaluationJob, images: Tensor, device: torch.device) -> Attacked:
    """Find the images that are classified correctly, clean and after each attack; in all processes of the group."""
    if job.standard is not None:
        return _attack_bounded(job, job.standard, images, device)
    earlier = _bounded_record(job)
    if earlier is None:
        return Attacked(job, _run_suite(job, images, device))
    say(f"continues from {earlier[0].id}")
    start, sample = _start_and_sample(*earlier)
    state = _run_suite(job, images, device, start=start, sample=sample)
    return Attacked(job, state, warnings=tuple(nonfinite_only(earlier[0].warnings)))


def _attack_bounded(job: EvaluationJob, standard: EvaluationJob, images: Tensor, device: torch.device) -> Attacked:
    on_all = [name for name in job.protocol.attacks if name in AUTOATTACK]
    first = dataclasses.replace(job, protocol=dataclasses.replace(job.protocol, attacks=on_all))
    start = _run_suite(first, images, device, folder_of=job)
    before = start[on_all[-1]].flags
    protocol = job.protocol
    assert protocol.tolerance is not None
    loop = AttackLoop(
        job.model, images, job.test.labels, protocol.batch_size, device, job.state, merge(gather(load(job.state)))
    )
    with torch.no_grad(), frozen_eval(job.model):
        sample, enough = attack_sample(
            loop,
            _attacks(standard, device),
            before,
            width=math.floor(protocol.tolerance * len(job.test) / 100 + 1e-9),
            seed=protocol.seed,
            by_place=_by_place(job),
            num_classes=job.subject.data.num_classes,
        )
    if enough:
        return Attacked(job, start | {name: loop.state[name] for name in SAMPLED.values()}, sample)
    say(f"a sample cannot narrow the interval to {protocol.tolerance:g} points: fab-t and square attack every image")
    state = _run_suite(standard, images, device, start=start, sample=sample)
    found = {name: int(loop.state[name].nonfinite.sum()) for name in SAMPLED.values()}
    return Attacked(standard, state, warnings=tuple(nonfinite_warnings(found)))


def _by_place(job: EvaluationJob) -> frozenset[str]:
    """The attacks whose draws for an image depend on its place in AutoAttack's batches and on nothing else."""
    return frozenset({"square"} if job.protocol.norm == "linf" and not job.protocol.package else ())


def _attacks(job: EvaluationJob, device: torch.device) -> dict[str, Perturb]:
    protocol = job.protocol
    return make_attacks(
        protocol.attacks,
        job.model,
        norm=protocol.norm,
        eps=protocol.eps,
        seed=protocol.seed,
        device=device,
        num_classes=job.subject.data.num_classes,
        package=protocol.package,
    )


def _run_suite(
    job: EvaluationJob,
    images: Tensor,
    device: torch.device,
    *,
    folder_of: EvaluationJob | None = None,
    start: EvaluationState | None = None,
    sample: SampleResult | None = None,
) -> EvaluationState:
    classes = job.subject.data.num_classes
    state = run_attacks(
        job.model,
        images,
        job.test.labels,
        _attacks(job, device) if job.protocol.attacks else {},
        batch_size=job.protocol.batch_size,
        device=device,
        folder=(folder_of or job).state,
        num_classes=classes,
        top_five=classes > 5,
        start=start,
        sample=sample,
    )
    for name, seconds in (sample.seconds if sample else {}).items():
        state[name] = dataclasses.replace(state[name], seconds=np.append(state[name].seconds, seconds))
    return state


def _bounded_record(job: EvaluationJob) -> tuple[Record, Flags] | None:
    """The record of a bounded evaluation that this standard one continues, and its flags; None if there is none."""
    protocol = job.protocol
    if protocol.attacks != list(AUTOATTACK) or protocol.package:
        return None
    for path in sorted(job.record.parent.glob(f"{glob.escape(job.id.removesuffix(job.key))}*.json")):
        try:
            record = records.load(path)
        except UserError:
            continue  # dkl tables reports it
        same = (
            record.attacks == list(SUITES["bounded"])
            and (record.checkpoint_sha256, record.config_hash) == (job.weights_sha256, job.config_hash)
            and (record.data_sha256, record.n) == (job.test.sha256, len(job.test))
            and (record.norm.lower(), record.eps) == (protocol.norm, protocol.eps)
            and (record.evaluation_seed, record.batch_size) == (protocol.seed, protocol.batch_size)
            and record.versions.get("attacks") == "dkl"
        )
        if same:
            return record, records.load_flags(path)
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
