"""``evaluate(cfg)``: from a run or anyone's weights to a record, by one process or several."""

import shutil
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from omegaconf import DictConfig

from dkl import records
from dkl.attacks import attack_mode
from dkl.build import pick_device
from dkl.console import say
from dkl.distributed import gather, group, launch, launched, local_device, rank, world
from dkl.errors import UserError
from dkl.evaluation import checks, provenance
from dkl.evaluation.attacked import run_attacks
from dkl.evaluation.job import Job, prepare
from dkl.evaluation.standing import State
from dkl.evaluation.suites import PACKAGE_NORMS, make_attacks
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


def _run(job: Job, cfg: DictConfig) -> None:
    """Attack the model with every process there is; the first writes the record."""
    device = local_device(pick_device(cfg.device))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    job.model.to(device)
    protocol = job.protocol
    attacks = ", ".join(protocol.attacks)
    say(job.layout)
    say(f"{job.subject.title}: {attacks} on {len(job.test)} images, {protocol.norm} eps {protocol.eps_text}")
    state, warnings = _attack(job, device)
    if rank() == 0:
        record = _record(job, cfg.additional_data, device, state, warnings)
        records.save(record, {name: standing.flags for name, standing in state.items()}, job.record.parent)
        say(f"{job.record}: clean {record.clean:.2%}, robust {record.robust:.2%}")


def _attack(job: Job, device: torch.device) -> tuple[State, list[str]]:
    """What stands after every attack, and in the first process what AutoAttack's checks say of the model."""
    images, labels, protocol = job.test.images.float().div_(255), job.test.labels, job.protocol
    warnings = []
    if rank() == 0:
        first = slice(0, protocol.batch_size)
        with attack_mode(job.model):
            warnings = checks.suspicious(job.model, images[first].to(device), labels[first].to(device))
        for text in warnings:
            say(f"warning: {text}")
    classes = job.subject.cfg.data.num_classes
    attacks = make_attacks(
        protocol.attacks,
        job.model,
        norm=protocol.norm,
        eps=protocol.eps,
        seed=protocol.seed,
        device=device,
        num_classes=classes,
    )
    state = run_attacks(
        job.model,
        images,
        labels,
        attacks,
        batch_size=protocol.batch_size,
        device=device,
        folder=job.state,
        num_classes=classes,
    )
    more = checks.square_found_more({name: float(state[name].flags.mean()) for name in protocol.attacks})
    for text in more:
        say(f"warning: {text}")
    return state, warnings + more


def _record(job: Job, additional_data: bool, device: torch.device, state: State, warnings: list[str]) -> records.Record:
    subject, protocol = job.subject, job.protocol
    weights = subject.weights
    results = {
        name: records.AttackResult(robust=float(state[name].flags.mean()), seconds=float(state[name].seconds.sum()))
        for name in protocol.attacks
    }
    return records.Record(
        id=job.id,
        method=subject.method,
        dataset=subject.cfg.data.name,
        architecture=subject.cfg.model.name,
        budget=subject.budget,
        seed=subject.seed,
        norm=PACKAGE_NORMS[protocol.norm],
        eps=protocol.eps,
        eps_text=protocol.eps_text,
        attacks=protocol.attacks,
        n=len(job.test),
        clean=float(state["clean"].flags.mean()),
        robust=min(result.robust for result in results.values()),
        per_attack=results,
        evaluation_seed=protocol.seed,
        batch_size=protocol.batch_size,
        additional_data=additional_data,
        row_hash=subject.row_hash or job.weights_sha256[:8],
        config_hash=subject.config_hash,
        checkpoint=f"{weights.path.parent.name}/{weights.path.name}",
        checkpoint_sha256=job.weights_sha256,
        data_sha256=job.test.sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=sum(result.seconds for result in results.values()),
        versions=provenance.versions(),
        hardware=provenance.hardware(device),
        git_commit=provenance.git_commit(),
        training=subject.training or {},
        warnings=warnings,
        weights=weights.text,
        synthetic=subject.synthetic,
    )
