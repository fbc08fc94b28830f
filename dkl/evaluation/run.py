"""``evaluate(cfg)``: from a run or a foreign checkpoint to a record, in one process or several."""

import dataclasses
import shutil
from contextlib import nullcontext
from pathlib import Path

import torch
from omegaconf import DictConfig

from dkl import records
from dkl.config import EvaluateConfig, typed
from dkl.console import say
from dkl.data import SegmentationSet
from dkl.errors import UserError
from dkl.evaluation.attacking import AttackTask, attack
from dkl.evaluation.continuing import earlier_evaluation
from dkl.evaluation.corrupted import by_severity, classify_corrupted
from dkl.evaluation.job import EvaluationJob, prepare
from dkl.evaluation.outputs.logger_report import report_evaluation
from dkl.evaluation.outputs.make_record import flags_of, make_record, make_segmentation_record, summary
from dkl.evaluation.outputs.mask_pictures import save_mask_pictures
from dkl.evaluation.segmentation.pixel_counts import count_test_pixels
from dkl.runtime import launched
from dkl.runtime.device import arithmetic, check_processes, pick_device, use
from dkl.runtime.distributed import gather, launched_group, local_device, rank, spawn_processes, world
from dkl.storage.files import locked
from dkl.validation import check_fields


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
    with launched_group("cpu") if launched() else nullcontext():
        job = prepare(config)
        _check_agreement(job)
        busy = f"another process is evaluating {job.subject.title}"
        with locked(job.state.with_suffix(".lock"), busy) if rank() == 0 else nullcontext():
            with report_evaluation(job):
                # All processes follow the first: by the time the others look, it may have written the record.
                if gather(_is_done(job))[0]:
                    say(f"{job.written}: already evaluated")
                elif launched() or config.devices == 1:
                    _run(job, config)
                else:
                    spawn_processes(_run_in_group, (config,), processes=config.devices, device="cpu")
            if rank() == 0:
                for each in filter(None, (job, job.standard)):
                    shutil.rmtree(each.state, ignore_errors=True)
    return job.written


def _is_done(job: EvaluationJob) -> bool:
    """Whether the record exists and is usable; if it is not, print why it is evaluated again."""
    if not job.written.exists():
        return False
    if why := records.why_unusable(job.written):
        say(why)
    return not why


def _check_agreement(job: EvaluationJob) -> None:
    """Raise UserError if the processes would evaluate different weights or images: they share the batches."""
    keys = gather(job.key)
    if other := next((number for number, key in enumerate(keys) if key != keys[0]), 0):
        raise UserError(
            f"process {other} has read other weights or images than process 0: share the results and data folders, or "
            f"copy the same {job.subject.weights.path} and images to every machine"
        )


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
        _run_on(device, job, config)


def _run_on(device: torch.device, job: EvaluationJob, config: EvaluateConfig) -> None:
    job.model.to(device)
    say(job.layout)
    for warning in job.warnings:
        say(f"warning: {warning}")
    if job.windows is not None:
        _run_segmentation(job, device)
        return
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
    protocol, state, sample, warnings = attack(task, earlier_evaluation(job))
    corrupted = classify_corrupted(task, job.corruptions) if job.corruptions else {}
    if rank() > 0:
        return
    job = dataclasses.replace(job, protocol=protocol)
    record = make_record(job, state, device=device, warnings=warnings, sample=sample, corrupted=corrupted)
    metrics = job.subject.run.metrics if job.subject.run else []
    records.save(record, flags_of(state, sample) | by_severity(corrupted), job.record.parent, metrics)
    say(f"{job.record}: {summary(record)}")


def _run_segmentation(job: EvaluationJob, device: torch.device) -> None:
    """Evaluate a network that labels pixels in all processes of the group; the first writes record and pictures."""
    assert job.windows is not None
    assert isinstance(job.test, SegmentationSet)
    say(f"{job.subject.title}: {job.windows.text}, on {len(job.test)} images with masks")
    counts = count_test_pixels(job.model, job.test, job.windows, device=device, folder=job.state)
    if rank() > 0:
        return
    record = make_segmentation_record(job, counts, device=device)
    arrays = {"hits": counts.hits, "true": counts.true, "predicted": counts.predicted}
    save_mask_pictures(job, device)
    records.save(record, arrays, job.record.parent, job.subject.run.metrics if job.subject.run else [])
    say(f"{job.record}: {summary(record)}")
