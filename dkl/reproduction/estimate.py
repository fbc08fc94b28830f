"""Estimates of how long jobs take: their floating-point operations over the speed of the device.

Training costs this many forward passes per image: 1 for a forward pass, 2 more for a gradient by the inputs, 3 in all
for a gradient by the weights. An attack of K steps adds 1 + 2K; the adversarial image and AWP add 3 each. An evaluation
costs what its attacks need for an image that resists all of them, times the share of such images. The result may be
wrong by a factor of two.
"""

import time
from collections.abc import Sequence

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dkl.assembly import build_model, load_data, pick_device
from dkl.config import DataConfig, TrainConfig
from dkl.evaluation.robustness.suites import attack_cost
from dkl.manifests import ManifestJob
from dkl.models import create_model
from dkl.reproduction.progress import JobProgress
from dkl.threat import parse_attacks

H100 = 180e12
"""Assumed operations per second of one NVIDIA H100: 36 % of its dense peak in TF32."""

RESISTING_SHARE = 0.4
"""Assumed share of the test images on which attacks run all their steps."""

SECONDS_TO_MEASURE = 0.3
"""Seconds of forward passes that measure a device's speed."""

DATASET_SIZES = {
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "imagenet": (1_281_167, 50_000),
    "imagenet_lt": (115_846, 50_000),
    "ade20k": (20_210, 2_000),
    "camvid": (367, 233),
}
"""Training and test images of the paper's datasets, so that an estimate needs no download."""


def operations(job: ManifestJob, config: TrainConfig, progress: JobProgress) -> float:
    """Floating-point operations that are left of ``job``."""
    with torch.device("meta"):
        model = build_model(config.model)
    forward, (training, testing) = forward_operations(model, config.data.shape), _sizes(config.data)
    training = _few_labels_epoch(config) or training
    epochs = 0 if progress.done else progress.total_epochs - progress.epochs
    per_image = passes(config) * forward + _teacher_operations(config)
    evaluations = 0.0
    for overrides in job.evaluations[progress.evaluations :]:
        settings = OmegaConf.from_dotlist(list(overrides))
        attacks = parse_attacks(settings.get("attacks", config.evaluation.attacks))
        full_attack = sum(attack_cost(name, config.data.num_classes).passes for name in attacks)
        evaluations += (1 + RESISTING_SHARE * full_attack) * (config.evaluation.n or testing) * forward
    return epochs * (training * per_image + testing * forward) + evaluations


def passes(config: TrainConfig) -> float:
    """Forward passes that training spends per image."""
    if not config.attack:
        return 3.0
    attack = 1 + 2 * (config.attack.get("steps") or 5)
    awp = 6 if (config.task.get("awp") or {}).get("gamma") else 0
    views = 2 if config.data.augment.second_view else 1
    return float(views * (attack + 6 + awp))


def forward_operations(model: nn.Module, shape: Sequence[int]) -> float:
    """Floating-point operations of one forward pass of ``model``, on the meta device, over one image (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(2, *shape, device="meta"))
    return counter.get_total_flops() / 2  # two images, because batch normalization may refuse a single one


def _teacher_operations(config: TrainConfig) -> float:
    teacher = config.task.get("teacher")
    if not teacher:
        return 0.0
    with torch.device("meta"):
        network = create_model(teacher["name"], config.data.num_classes, config.data.shape[0])
    return forward_operations(network, config.data.shape)


def _sizes(data: DataConfig) -> tuple[int, int]:
    """Training and test images; the paper's datasets are not read."""
    training, testing = DATASET_SIZES.get(data.name) or (len(split) for split in load_data(data))
    return data.train_size or training, data.test_size or testing


def _few_labels_epoch(config: TrainConfig) -> int:
    """Images that an epoch of semi-supervised training forwards, with two views of each unlabeled one; else 0."""
    data, trainer = config.data, config.trainer
    if data.labels_per_class is None:
        return 0
    passed = -(-data.labels_per_class * data.num_classes // trainer.batch_size)
    return (trainer.steps_per_epoch or passed) * trainer.batch_size * (1 + 2 * data.unlabeled.ratio)


def speed(config: TrainConfig) -> float:
    """Operations per second of the network of ``config`` on its device, measured on a few forward passes."""
    device = pick_device(config.trainer.device)
    with torch.device("meta"):
        forward = forward_operations(build_model(config.model), config.data.shape)
    model = build_model(config.model).to(device).eval()
    images, rounds = torch.rand(32, *config.data.shape, device=device), 0
    with torch.inference_mode():
        model(images).sum().item()  # the first pass allocates memory and compiles kernels
        started, took = time.perf_counter(), 0.0
        while took < SECONDS_TO_MEASURE:
            model(images).sum().item()  # .item() waits for the device
            took, rounds = time.perf_counter() - started, rounds + 1
    return rounds * len(images) * forward / took


def duration(seconds: float) -> str:
    """``seconds`` as text, in the largest unit of which there are at least two."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
