"""How long jobs will take, before they start: operations counted from configurations, over a device's speed.

An image costs training so many forward passes of the network: one to look, twice that to differentiate by inputs, three
times to differentiate by weights. An attack of K steps adds 1 + 2K, its second image and AWP three passes each. An
evaluation costs what its attacks need for an image that withstands them, and a part of the images does. The result is
right to a factor of two or so, and is said to be about so much.
"""

import time
from collections.abc import Sequence

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dkl.assembly import build_model, load_data, pick_device
from dkl.evaluation.robustness.suites import attack_cost
from dkl.manifests import ManifestJob
from dkl.models import create_model
from dkl.reproduction.progress import JobProgress
from dkl.threat import parse_attacks

H100 = 180e12
"""Operations a second of one NVIDIA H100: 36 % of its dense peak in TF32, an assumption for budgets that need one."""

WITHSTAND = 0.4
"""Share of test images that attacks have to go on with; an assumption."""

MEASURED = 0.3
"""Seconds of forward passes that tell a device's speed."""

SIZES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000)} | {
    "imagenet": (1_281_167, 50_000),
    "imagenet_lt": (115_846, 50_000),
}
"""Images of the paper's data sets, so that an estimate needs none of them."""


def forward_operations(model: nn.Module, shape: Sequence[int]) -> float:
    """Floating-point operations of one forward pass of ``model``, on the meta device, over one image (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(2, *shape, device="meta"))
    return counter.get_total_flops() / 2


def _teacher_operations(cfg: DictConfig) -> float:
    teacher = OmegaConf.select(cfg, "task.teacher")
    if not teacher:
        return 0.0
    with torch.device("meta"):
        network = create_model(teacher.name, cfg.data.num_classes, cfg.data.shape[0])
    return forward_operations(network, cfg.data.shape)


def passes(cfg: DictConfig) -> float:
    """Forward passes that training spends on an image."""
    if not cfg.attack:
        return 3.0
    attack = 1 + 2 * (cfg.attack.get("steps") or 5)
    awp = 6 if OmegaConf.select(cfg, "task.awp.gamma") else 0
    views = 2 if cfg.data.augment.second_view else 1
    return float(views * (attack + 6 + awp))


def _sizes(cfg: DictConfig) -> tuple[int, int]:
    """Training and test images, without reading those of the paper's data sets."""
    training, testing = SIZES.get(cfg.data.name) or (len(split) for split in load_data(cfg.data))
    return cfg.data.train_size or training, cfg.data.test_size or testing


def operations(job: ManifestJob, cfg: DictConfig, standing: JobProgress) -> float:
    """Floating-point operations that are left of ``job``."""
    with torch.device("meta"):
        model = build_model(cfg.model)
    forward, (training, testing) = forward_operations(model, cfg.data.shape), _sizes(cfg)
    epochs = 0 if standing.done else standing.of_epochs - standing.epochs
    image = passes(cfg) * forward + _teacher_operations(cfg)
    evaluations = 0.0
    for overrides in job.evaluations[standing.records :]:
        attacks = parse_attacks(OmegaConf.from_dotlist(list(overrides)).get("attacks", cfg.evaluation.attacks))
        each = sum(attack_cost(name, cfg.data.num_classes).passes for name in attacks)
        evaluations += (1 + WITHSTAND * each) * (cfg.evaluation.n or testing) * forward
    return epochs * (training * image + testing * forward) + evaluations


def speed(cfg: DictConfig) -> float:
    """Operations a second of the network of ``cfg`` on its device, measured on a few forward passes."""
    device = pick_device(cfg.trainer.device)
    with torch.device("meta"):
        forward = forward_operations(build_model(cfg.model), cfg.data.shape)
    model = build_model(cfg.model).to(device).eval()
    images, rounds = torch.rand(32, *cfg.data.shape, device=device), 0
    with torch.inference_mode():
        model(images).sum().item()
        started, took = time.perf_counter(), 0.0
        while took < MEASURED:
            model(images).sum().item()
            took, rounds = time.perf_counter() - started, rounds + 1
    return rounds * len(images) * forward / took


def duration(seconds: float) -> str:
    """``seconds`` in the unit in which people would say it."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
