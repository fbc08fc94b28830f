"""``evaluate(cfg)``: from a run or anyone's weights to a record, by one process or several."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from dkl import records
from dkl.assembly import pick_device
from dkl.attacks import frozen_eval
from dkl.console import say
from dkl.distributed import gather, group, launch, launched, local_device, rank, world
from dkl.errors import UserError
from dkl.evaluation.job import EvaluationJob, prepare
from dkl.evaluation.outputs.logger_report import logged
from dkl.evaluation.outputs.make_record import make_record, summary
from dkl.evaluation.robustness import checks
from dkl.evaluation.robustness.attack_loop import run_attacks, scaled
from dkl.evaluation.robustness.progress import State
from dkl.evaluation.robustness.suites import make_attacks
from dkl.files import locked


def _check_devices(cfg: DictConfig) -> None:
    """Raise UserError where there are not as many devices as ``cfg`` asks for."""
    device = pick_device(cfg.device)
    if cfg.devices < 1:
        raise UserError(f"devices={cfg.devices} must be at least 1")
    if device.type == "cuda" and cfg.devices > torch.cuda.device_count():
        raise UserError(f"devices={cfg.devices}, but there are {torch.cuda.device_count()} GPUs here")


def evaluate(cfg: DictConfig) -> Path:
    """Evaluate what ``cfg`` names and write its record; returns the record's path, at once where it is there already.

    Killed at any moment and called again, it goes on with the batches that are left and ends with the same flags, on
    however many processes: ``devices`` of them are started, or torchrun's are used, whatever ``devices`` says.
    """
    _check_devices(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    with group("cpu") if launched() else nullcontext():  # flags travel by the CPU, whatever the attacks run on
        job = prepare(cfg)
        busy = f"another process is evaluating {job.subject.title}"
        with locked(job.state.with_suffix(".lock"), busy) if rank() == 0 else nullcontext():
            with logged(job, cfg):
                if gather(job.record.exists())[0]:
                    say(f"{job.record}: already evaluated")
                elif launched() or cfg.devices == 1:
                    _run(job, cfg)
                else:
                    launch(_one_of_several, (cfg,), processes=cfg.devices, device="cpu")
            if rank() == 0:
                shutil.rmtree(job.state, ignore_errors=True)
    return job.record


def _one_of_several(cfg: DictConfig) -> None:
    """The work of one of the processes that ``evaluate`` starts; they share the threads of one."""
    torch.set_num_threads(cfg.threads or max(1, torch.get_num_threads() // world()))
    _run(prepare(cfg), cfg)


def _run(job: EvaluationJob, cfg: DictConfig) -> None:
    """Evaluate the model with every process there is; the first writes the record."""
    device = local_device(pick_device(cfg.device))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    job.model.to(device)
    protocol = job.protocol
    say(job.layout)
    say(f"{job.subject.title}: {protocol.text} on {len(job.test)} images")
    images = job.test.tensor()
    warnings = _suspicious(job, images, device) if protocol.attacks and rank() == 0 else []
    state = _attack(job, images, device)
    if protocol.attacks:
        more = checks.square_warnings({name: float(state[name].flags.mean()) for name in protocol.attacks})
        warnings += _warned(more)
    if rank() == 0:
        record = make_record(job, state, additional_data=cfg.additional_data, device=device, warnings=warnings)
        flags = {name: standing.flags for name, standing in state.items()}
        records.save(record, flags, job.record.parent, job.subject.rows)
        say(f"{job.record}: {summary(record)}")


def _warned(texts: list[str]) -> list[str]:
    """``texts``, each said."""
    for text in texts:
        say(f"warning: {text}")
    return texts


def _suspicious(job: EvaluationJob, images: Tensor, device: torch.device) -> list[str]:
    """What AutoAttack's checks say of the model on the first batch."""
    first = slice(0, job.protocol.batch_size)
    with frozen_eval(job.model):
        found = checks.model_warnings(job.model, scaled(images[first]).to(device), job.test.labels[first].to(device))
    return _warned(found)


def _attack(job: EvaluationJob, images: Tensor, device: torch.device) -> State:
    """What stands as it is and after every attack, where there are any."""
    protocol, classes = job.protocol, job.subject.cfg.data.num_classes
    attacks = {}
    if protocol.attacks:
        attacks = make_attacks(
            protocol.attacks,
            job.model,
            norm=protocol.norm,
            eps=protocol.eps,
            seed=protocol.seed,
            device=device,
            num_classes=classes,
        )
    return run_attacks(
        job.model,
        images,
        job.test.labels,
        attacks,
        batch_size=protocol.batch_size,
        device=device,
        folder=job.state,
        num_classes=classes,
        top_five=classes > 5,
    )
