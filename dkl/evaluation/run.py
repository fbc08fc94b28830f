"""``evaluate(cfg)``: from a run or a foreign checkpoint to a record, in one process or several."""

import dataclasses
import glob
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from dkl import records
from dkl.attacks import frozen_eval, top1
from dkl.attacks.autoattack.attack_loop import UNCHANGED, AttackLoop, AttackProgress, EvaluationState, load, merge
from dkl.attacks.autoattack.bounded import SampleResult
from dkl.attacks.autoattack.checks import NOT_FINITE
from dkl.attacks.autoattack.classifier import pass_seconds, scaled
from dkl.attacks.autoattack.suite import Earlier, attack
from dkl.attacks.autoattack.task import AttackTask
from dkl.config import EvaluateConfig, typed
from dkl.console import duration, say
from dkl.data import CORRUPTIONS, SegmentationSet
from dkl.errors import UserError
from dkl.evaluation.job import EvaluationJob, prepare
from dkl.evaluation.logger_report import report_evaluation
from dkl.evaluation.make_record import by_severity, flags_of, make_record, make_segmentation_record, summary
from dkl.evaluation.pictures import save_mask_pictures
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.segmentation import count_test_pixels
from dkl.records import Flags, Record
from dkl.runtime import launched
from dkl.runtime.device import arithmetic, check_processes, pick_device, use
from dkl.runtime.distributed import gather, local_device, process_group, rank, spawn_processes, world
from dkl.sampling_bound import count_interval
from dkl.storage.files import locked
from dkl.threat import AUTOATTACK, SAMPLED, SUITES, known_attack
from dkl.validation import check_fields

Arrays = Mapping[str, NDArray[Any]]


def evaluate(cfg: DictConfig) -> Path:
    """Evaluate what ``cfg``, a configuration of ``dkl evaluate``, names; return the path of its record.

    Returns immediately if the record exists. An evaluation that was killed continues with the next batch and ends with
    the same flags, also with another number of processes. ``devices`` processes are started, unless torchrun has
    started some. Raises UserError on a mistake in ``cfg``.
    """
    config = typed(cfg, EvaluateConfig)
    check_fields(config)
    _check_devices(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    # The processes exchange numpy flags only, so a CPU group serves GPUs as well.
    with process_group("cpu") if launched() else nullcontext():
        job = prepare(config)
        keys = gather(job.key)  # the processes share the batches
        if other := next((number for number, key in enumerate(keys) if key != keys[0]), 0):
            raise UserError(
                f"process {other} has read other weights or images than process 0: share the results and data folders, "
                f"or copy the same {job.subject.weights.path} and images to every machine"
            )
        busy = f"another process is evaluating {job.subject.title}"
        with locked(job.state.with_suffix(".lock"), busy) if rank() == 0 else nullcontext():
            with report_evaluation(job):
                # All processes follow the first: by the time the others look, it may have written the record.
                why = records.why_unusable(job.written) if job.written.exists() else ""
                if why:
                    say(why)
                if gather(why is None)[0]:
                    say(f"{job.written}: already evaluated")
                elif launched() or config.devices == 1:
                    _run(job, config)
                else:
                    spawn_processes(_run_in_group, (config,), processes=config.devices, device="cpu")
            if rank() == 0:
                for done in filter(None, (job, job.standard)):
                    shutil.rmtree(done.state, ignore_errors=True)
    return job.written


def _check_devices(config: EvaluateConfig) -> None:
    """Raise UserError if this machine cannot carry the processes that ``config`` asks for."""
    # With torchrun the processes of several machines share the work, and each of them takes a device of its own.
    if not launched():
        check_processes(config.devices, pick_device(config.device))


def _run_in_group(config: EvaluateConfig) -> None:
    """Run the evaluation as one of the processes that ``evaluate`` starts; they divide the threads of one process."""
    torch.set_num_threads(config.threads or max(1, torch.get_num_threads() // world()))
    _run(prepare(config), config)


def _run(job: EvaluationJob, config: EvaluateConfig) -> None:
    """Evaluate in all processes of the group; the first writes the record."""
    device = local_device(pick_device(config.device))
    use(device)
    # As in RobustBench, whose scripts leave torch's defaults: TF32 in convolutions, not in products of matrices.
    with arithmetic(device, products="ieee", convolutions="tf32"):
        job.model.to(device)
        say(job.layout)
        for warning in job.warnings:
            say(f"warning: {warning}")
        measure = _measure if job.windows is None else _measure_segmentation
        outcome = measure(job, device)
    if outcome is not None:
        record, flags = outcome
        records.save(record, flags, job.record.parent, job.subject.run.metrics if job.subject.run else [])
        say(f"{job.results / 'records' / record.id}.json: {summary(record)}")


def _measure(job: EvaluationJob, device: torch.device) -> tuple[Record, Arrays] | None:
    """Classify and attack the images in all processes of the group; the first returns the record and its flags."""
    say(f"{job.subject.title}: {job.protocol.text} on {len(job.test)} images")
    task = AttackTask(
        model=job.model,
        images=job.test.tensor(),
        labels=job.test.labels,
        num_classes=job.subject.data.num_classes,
        protocol=job.protocol,
        device=device,
        folder=job.state,
    )
    if job.protocol.attacks and rank() == 0:
        say(_cost(task))
    protocol, state, sample, warnings = attack(task, _earlier_evaluation(job))
    corrupted = _classify_corrupted(task, job) if job.corruptions else {}
    if rank() > 0:
        return None
    job = dataclasses.replace(job, protocol=protocol)
    record = make_record(job, state, device=device, warnings=warnings, sample=sample, corrupted=corrupted)
    return record, flags_of(state, sample) | by_severity(corrupted)


def _cost(task: AttackTask[EvaluationProtocol]) -> str:
    """How long the attacks take if no image falls, from a pass of the first batch."""
    first = scaled(task.images[: task.protocol.batch_size]).to(task.device)
    seconds, count = pass_seconds(task.searched, first), len(task.labels)
    passes = sum(known_attack(name).cost(task.num_classes).passes for name in task.protocol.attacks)
    limit = duration(seconds * passes * count / len(first) / world())
    return f"at most about {limit} for n={count} at {seconds:.2g} s per pass of a batch; images that fall cost less"


def _measure_segmentation(job: EvaluationJob, device: torch.device) -> tuple[Record, Arrays] | None:
    """Label the pixels in all processes of the group; the first writes pictures, and returns the record and counts."""
    assert job.windows is not None
    assert isinstance(job.test, SegmentationSet)
    say(f"{job.subject.title}: {job.windows.text}, on {len(job.test)} images with masks")
    counts = count_test_pixels(job.model, job.test, job.windows, device=device, folder=job.state)
    if rank() > 0:
        return None
    record = make_segmentation_record(job, counts, device=device)
    save_mask_pictures(job, device)
    return record, {"hits": counts.hits, "true": counts.true, "predicted": counts.predicted}


def _earlier_evaluation(job: EvaluationJob) -> Earlier | None:
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
            and (record.checkpoint_sha256, record.config_hash) == (job.weights_sha256, job.subject.config_hash)
            and (record.data_sha256, record.n) == (job.test.sha256, len(job.test))
        )
        if same:
            start, sample = _start_and_sample(record, records.load_flags(path))
            return Earlier(record.id, start, sample, tuple(each for each in record.warnings if NOT_FINITE in each))
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


@torch.no_grad()
def _classify_corrupted(task: AttackTask[EvaluationProtocol], job: EvaluationJob) -> EvaluationState:
    """Find the corrupted images that ``task.model`` classifies correctly; in all processes of the group.

    Returns one entry per corruption with flags ``[5 n]``, severity by severity. Raises UserError if a label is not one
    of the classes, or if there are fewer than ``n`` images.
    """
    assert job.corruptions is not None
    state = merge(gather(load(task.folder)))
    plain = dataclasses.replace(task, protocol=dataclasses.replace(task.protocol, search={}))  # nothing is searched
    with frozen_eval(task.classifier):
        for name in CORRUPTIONS:
            found = job.corruptions.read(name, job.protocol.n)
            everything = np.ones(len(found), dtype=np.bool_)
            loop = AttackLoop(dataclasses.replace(plain, images=found.images, labels=found.labels), state)
            loop.attack({name: top1}, UNCHANGED, everything, 1)
            state = loop.state
    return {name: state[name] for name in CORRUPTIONS}
