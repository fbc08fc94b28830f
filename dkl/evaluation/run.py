"""``evaluate(cfg)``: from a run or anyone's weights to a record."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from dkl import records
from dkl.attacks import attack_mode
from dkl.build import build_model, load_data, pick_device
from dkl.console import say
from dkl.data import Images
from dkl.errors import UserError
from dkl.evaluation import checks, provenance
from dkl.evaluation.attacked import Standing, run_attacks
from dkl.evaluation.subject import Protocol, Subject, foreign, own_run, protocol_of
from dkl.evaluation.suites import PACKAGE_NORMS, check_classes, make_attacks
from dkl.files import digest, locked
from dkl.models import load_checkpoint


def _load_model(cfg: DictConfig, weights: Path, device: torch.device) -> nn.Module:
    model = build_model(cfg)
    say(load_checkpoint(model, weights))
    return model.float().eval().to(device)


def evaluate(cfg: DictConfig) -> Path:
    """Evaluate what ``cfg`` names and write its record; returns the record's path, at once where it is there already.

    Killed at any moment and called again, it goes on with the next batch and ends with the same flags.
    """
    if bool(cfg.run) == bool(cfg.checkpoint):
        raise UserError("name what to evaluate: run=FOLDER, or checkpoint=FILE with model=… and data=…")
    subject = own_run(cfg) if cfg.run else foreign(cfg)
    protocol = protocol_of(cfg, subject)
    device = pick_device(cfg.device)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    check_classes(protocol.attacks, subject.cfg.data.num_classes)
    model = _load_model(subject.cfg, subject.weights, device)
    _, test = load_data(subject.cfg.data)
    if protocol.n is not None:
        test = test.balanced(protocol.n)
    weights_sha = provenance.weights_sha256(model.state_dict())
    key = digest([weights_sha, test.sha256, dataclasses.asdict(protocol)])
    name = f"{subject.cfg.data.name}-{subject.cfg.model.name}-{subject.title}-{key}"
    results = Path(cfg.paths.results)
    path, state = results / "records" / f"{name}.json", results / "runs" / "evaluations" / f"{key}.npz"
    with locked(state.with_suffix(".lock"), f"another process is evaluating {subject.title}"):
        if path.exists():
            state.unlink(missing_ok=True)
            say(f"{path}: already evaluated")
            return path
        attacks = ", ".join(protocol.attacks)
        say(f"{subject.title}: {attacks} on {len(test)} images, {protocol.norm} eps {protocol.eps_text}")
        standing, warnings = _attack(model, test, protocol, device, state, subject.cfg.data.num_classes)
        record = _record(name, cfg, subject, protocol, test, weights_sha, device, standing, warnings)
        assert standing.clean is not None
        records.save(record, {"clean": standing.clean, **standing.after}, path.parent)
        state.unlink()
    say(f"{path}: clean {record.clean:.2%}, robust {record.robust:.2%}")
    return path


def _attack(
    model: nn.Module, test: Images, protocol: Protocol, device: torch.device, state: Path, num_classes: int
) -> tuple[Standing, list[str]]:
    """Flags after every attack, and what AutoAttack's checks say of the model."""
    images, labels = test.images.float().div_(255), test.labels
    with attack_mode(model):
        first = slice(0, protocol.batch_size)
        warnings = checks.suspicious(model, images[first].to(device), labels[first].to(device))
    for text in warnings:
        say(f"warning: {text}")
    attacks = make_attacks(
        protocol.attacks,
        model,
        norm=protocol.norm,
        eps=protocol.eps,
        seed=protocol.seed,
        device=device,
        num_classes=num_classes,
    )
    standing = run_attacks(
        model,
        images,
        labels,
        attacks,
        batch_size=protocol.batch_size,
        device=device,
        path=state,
        num_classes=num_classes,
    )
    accuracies = {name: float(flags.mean()) for name, flags in standing.after.items()}
    more = checks.square_found_more(accuracies)
    for text in more:
        say(f"warning: {text}")
    return standing, warnings + more


def _record(
    name: str,
    cfg: DictConfig,
    subject: Subject,
    protocol: Protocol,
    test: Images,
    weights_sha: str,
    device: torch.device,
    standing: Standing,
    warnings: list[str],
) -> records.Record:
    assert standing.clean is not None
    results = {
        attack: records.AttackResult(robust=float(flags.mean()), seconds=standing.seconds[attack])
        for attack, flags in standing.after.items()
    }
    return records.Record(
        id=name,
        method=subject.method,
        dataset=subject.cfg.data.name,
        architecture=subject.cfg.model.name,
        budget=subject.budget,
        seed=subject.seed,
        norm=PACKAGE_NORMS[protocol.norm],
        eps=protocol.eps,
        eps_text=protocol.eps_text,
        attacks=protocol.attacks,
        n=len(test),
        clean=float(standing.clean.mean()),
        robust=min(result.robust for result in results.values()),
        per_attack=results,
        evaluation_seed=protocol.seed,
        batch_size=protocol.batch_size,
        additional_data=cfg.additional_data,
        row_hash=subject.row_hash or weights_sha[:8],
        config_hash=subject.config_hash,
        checkpoint=subject.weights.parent.name + "/" + subject.weights.name,
        checkpoint_sha256=weights_sha,
        data_sha256=test.sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=sum(standing.seconds.values()),
        versions=provenance.versions(),
        hardware=provenance.hardware(device),
        git_commit=provenance.git_commit(),
        training=subject.training or {},
        warnings=warnings,
    )
