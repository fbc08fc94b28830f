"""Estimates of how long jobs take, as ranges: their forward passes times the seconds of one.

Training costs this many forward passes per image: 1 for a forward pass, 2 more for a gradient by the inputs, 3 in all
for a gradient by the weights. An attack of K steps adds 1 + 2K; the adversarial image and AWP add 3 each. An evaluation
costs what its attacks need for an image that resists all of them, times the share of such images, which is unknown
before. The seconds of a pass are measured on the device, or follow from an assumed speed of an H100.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dkl.assembly import build_model, load_data
from dkl.config import DataConfig, Precision, TrainConfig
from dkl.manifests import ManifestJob
from dkl.models import create_model
from dkl.reproduction.spans import Span
from dkl.runtime.device import pick_device
from dkl.threat import known_attack, parse_attacks

H100_SPEED = Span(40e12, 300e12)
"""Assumed operations per second of one NVIDIA H100: 8 to 60 % of its dense peak in TF32."""

H100_OPERATOR = Span(5e-6, 30e-6)
"""Assumed seconds in which one operator is launched; small networks take this long, whatever their arithmetic."""

RESISTING_SHARE = Span(0.1, 0.9)
"""Assumed share of the test images on which attacks run all their steps."""

SMOKE_SHARE = Span(0.002, 0.1)
"""The same at budget smoke, whose attacks are so strong that hardly any image resists."""

MEASURED = Span(0.5, 1.7)
"""Assumed factors between measured passes and the same passes in training, with data and optimizer."""

SECONDS_TO_MEASURE = 0.3
"""Seconds of passes that measure a device's speed."""

MEASURED_IMAGES = 256
"""Images per measured pass, at most: a device may not hold a whole batch."""

MEASURED_OPERATIONS = 4e10
"""Operations per pass above which the measurement on a CPU takes fewer images."""

DATASET_SIZES = {
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "imagenet": (1_281_167, 50_000),
    "imagenet_lt": (115_846, 50_000),
    "digits": (1_442, 355),
}
"""Training and test images of datasets, so that an estimate needs no download and reads no images."""


class PassSeconds(NamedTuple):
    """Seconds of a forward pass per image, in training and in evaluation."""

    training: Span
    evaluation: Span


@dataclass(frozen=True)
class JobEstimate:
    """Seconds of an ``epoch`` of a job, of ``images`` images, and of each of its ``evaluations``."""

    epoch: Span
    evaluations: tuple[Span, ...]
    images: int


def estimate(job: ManifestJob, config: TrainConfig, seconds: PassSeconds) -> JobEstimate:
    """Estimate ``job`` from the ``seconds`` of a pass of its network."""
    training, testing = _sizes(config.data)
    training = _few_labels_epoch(config) or training
    per_image = passes(config) + _teacher_passes(config)
    epoch = seconds.training * ((training * per_image + testing) / config.trainer.devices)
    share = SMOKE_SHARE if config.budget.name == "smoke" else RESISTING_SHARE
    evaluations = []
    for overrides in job.evaluations:
        settings = OmegaConf.from_dotlist(list(overrides))
        attacks = parse_attacks(settings.get("attacks", config.evaluation.attacks))
        full_attack = sum(known_attack(name).cost(config.data.num_classes).passes for name in attacks)
        images = settings.get("n", config.evaluation.n) or testing
        low, high = (images * (1 + part * full_attack) for part in (share.low, share.high))
        evaluations.append(Span(seconds.evaluation.low * low, seconds.evaluation.high * high))
    return JobEstimate(epoch, tuple(evaluations), _steps(config) * config.trainer.batch_size)


def passes(config: TrainConfig) -> float:
    """Forward passes that training spends per image."""
    if not config.attack:
        return 3.0
    attack = 1 + 2 * (config.attack.get("steps") or 5)
    awp = 6 if (config.task.get("awp") or {}).get("gamma") else 0
    views = 2 if config.data.augment.second_view else 1
    return float(views * (attack + 6 + awp))


class _Operators(TorchDispatchMode):
    """Counts the operators that run in the context."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def forward_operations(model: nn.Module, shape: Sequence[int]) -> tuple[float, int]:
    """Floating-point operations per image (C, H, W), and operators, of one forward pass of ``model`` on meta."""
    images = torch.empty(2, *shape, device="meta")  # two, because batch normalization may refuse a single one
    model.eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(images)
        with _Operators() as operators:
            model(images)
    return counter.get_total_flops() / len(images), operators.count


def _operations(config: TrainConfig) -> tuple[float, int]:
    with torch.device("meta"):
        model = build_model(config.model)
    return forward_operations(model, config.data.shape)


def _teacher_passes(config: TrainConfig) -> float:
    """Forward passes of the student that one of the teacher's costs."""
    teacher = config.task.get("teacher")
    if not teacher:
        return 0.0
    with torch.device("meta"):
        network = create_model(teacher["name"], config.data.num_classes, config.data.shape[0])
    return forward_operations(network, config.data.shape)[0] / _operations(config)[0]


def _sizes(data: DataConfig) -> tuple[int, int]:
    """Training and test images; known datasets are not read."""
    training, testing = DATASET_SIZES.get(data.name) or (len(split) for split in load_data(data))
    return data.train_size or training, data.test_size or testing


def _steps(config: TrainConfig) -> int:
    """Updates per epoch."""
    data, trainer = config.data, config.trainer
    if data.labels_per_class is None:
        return math.ceil(_sizes(data)[0] / trainer.batch_size)
    return trainer.steps_per_epoch or math.ceil(data.labels_per_class * data.num_classes / trainer.batch_size)


def _few_labels_epoch(config: TrainConfig) -> int:
    """Images that an epoch of semi-supervised training forwards, with two views of each unlabeled one; else 0."""
    if config.data.labels_per_class is None:
        return 0
    return _steps(config) * config.trainer.batch_size * (1 + 2 * config.data.unlabeled.ratio)


def assumed(config: TrainConfig) -> PassSeconds:
    """Seconds of a pass of the network of ``config`` on one H100, from assumed speeds."""
    forward, operators = _operations(config)

    def per_image(batch: int) -> Span:
        slow = forward / H100_SPEED.low + operators * H100_OPERATOR.high / batch
        return Span(max(forward / H100_SPEED.high, operators * H100_OPERATOR.low / batch), slow)

    return PassSeconds(per_image(config.trainer.batch_size), per_image(config.evaluation.batch_size))


def measure(config: TrainConfig) -> PassSeconds:
    """Seconds of a pass of the network of ``config`` on its device, measured in parts of its batches."""
    trainer = config.trainer
    device = pick_device(trainer.device)
    forward, _ = _operations(config)
    model = build_model(config.model).to(device).eval()
    part = math.ceil(trainer.batch_size / (trainer.devices * trainer.accumulate))
    most = MEASURED_OPERATIONS / forward if device.type == "cpu" else math.inf
    images = torch.rand(max(1, int(min(part, MEASURED_IMAGES, most))), *config.data.shape, device=device)
    bf16 = trainer.precision is Precision.bf16

    def forward_and_backward() -> None:
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model(images).sum()
        loss.backward()
        loss.item()  # waits for the device

    with _threads(trainer.threads), torch.enable_grad():
        forward_and_backward()  # the first one allocates memory and compiles kernels
        started, took, rounds = time.perf_counter(), 0.0, 0
        while took < SECONDS_TO_MEASURE:
            forward_and_backward()
            took, rounds = time.perf_counter() - started, rounds + 1
    seconds = MEASURED * (took / (rounds * 3 * len(images)))
    return PassSeconds(seconds, seconds)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Use ``number`` threads of torch in the body, if it is not None."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
