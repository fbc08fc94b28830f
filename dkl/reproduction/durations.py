"""How long jobs take, as ranges: estimated before they start, then corrected by the epochs and evaluations done.

An estimate is the forward passes of a job times the seconds of one. Training costs this many forward passes per image:
1 for a forward pass, 2 more for a gradient by the inputs, 3 in all for a gradient by the weights. An attack of K steps
adds 1 + 2K; the adversarial image and AWP add 3 each. An evaluation costs what its attacks need for an image that
resists all of them, times the share of such images, which is unknown before. The seconds of a pass are measured on the
device, or follow from an assumed speed of an H100.

The time left is read from files only, so work of other processes and of other commands on the same results folder
counts too.
"""

import json
import math
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dkl.assembly import build_model, load_data
from dkl.config import TrainConfig
from dkl.config.schema import Precision
from dkl.console import duration, say
from dkl.manifests import ManifestJob
from dkl.models.teacher import untrained_teacher
from dkl.records import Record, load_all
from dkl.records.storage import DATASET_SIZES
from dkl.reproduction.planning import PlannedJob, progress_of, records_of
from dkl.runtime.device import pick_device
from dkl.threat import known_attack, parse_attacks


@dataclass(frozen=True)
class Span:
    """A range between two positive numbers, such as seconds."""

    low: float
    high: float

    def __add__(self, other: "Span") -> "Span":
        """Add the ends of another range."""
        return Span(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Span":
        """Multiply both ends by a number."""
        return Span(self.low * factor, self.high * factor)

    @property
    def middle(self) -> float:
        """The geometric mean of the ends."""
        return math.sqrt(self.low * self.high)

    def __str__(self) -> str:
        """``about 5 min`` if the ends differ by at most a factor of two, otherwise ``2 to 10 min``."""
        if self.high <= 2 * self.low:
            return f"about {duration(self.middle)}"
        low, high = duration(self.low), duration(self.high)
        number, _, unit = low.partition(" ")
        if low == high:
            return f"about {high}"
        return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


NONE = Span(0, 0)
"""The sum of no ranges."""

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
    data, trainer = config.data, config.trainer
    training, testing = DATASET_SIZES.get(data.name) or (len(split) for split in load_data(data))
    training, testing = data.train_size or training, data.test_size or testing
    steps, forwarded = math.ceil(training / trainer.batch_size), training
    if data.labels_per_class is not None:  # semi-supervised: two views of each unlabeled image
        steps = trainer.steps_per_epoch or math.ceil(data.labels_per_class * data.num_classes / trainer.batch_size)
        forwarded = steps * trainer.batch_size * (1 + 2 * data.unlabeled.ratio)
    per_image = passes(config)
    if teacher := config.task.get("teacher"):
        with torch.device("meta"):
            network = untrained_teacher(teacher["name"], data.num_classes, data.shape[0])
        # AdaAD's attack differentiates the teacher in each of its steps.
        steps_of_attack = (config.attack or {}).get("steps") or 5
        count = 1 + 2 * steps_of_attack if config.task.get("attack_target") == "teacher.adversarial" else 1
        per_image += count * forward_operations(network, data.shape)[0] / _operations(config)[0]
    epoch = seconds.training * ((forwarded * per_image + testing) / trainer.devices)
    share = SMOKE_SHARE if config.budget.name == "smoke" else RESISTING_SHARE
    evaluations = []
    for overrides in job.evaluations:
        settings = OmegaConf.from_dotlist(list(overrides))
        attacks = parse_attacks(settings.get("attacks", config.evaluation.attacks))
        full_attack = sum(known_attack(name).cost(data.num_classes).passes for name in attacks)
        images = settings.get("n", config.evaluation.n) or testing
        low, high = (images * (1 + part * full_attack) for part in (share.low, share.high))
        evaluations.append(Span(seconds.evaluation.low * low, seconds.evaluation.high * high))
    return JobEstimate(epoch, tuple(evaluations), steps * trainer.batch_size)


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

    threads = torch.get_num_threads()
    torch.set_num_threads(trainer.threads or threads)
    try:
        with torch.enable_grad():
            forward_and_backward()  # the first one allocates memory and compiles kernels
            started, took, rounds = time.perf_counter(), 0.0, 0
            while took < SECONDS_TO_MEASURE:
                forward_and_backward()
                took, rounds = time.perf_counter() - started, rounds + 1
    finally:
        torch.set_num_threads(threads)
    seconds = MEASURED * (took / (rounds * 3 * len(images)))
    return PassSeconds(seconds, seconds)


FIRST_REPORT, LONGEST_INTERVAL = 60.0, 1800.0
"""Seconds before the first corrected estimate, and the longest time between two. The interval doubles each time."""

LAST_EPOCHS = 5
"""Epochs whose median duration predicts the others."""

OF_OTHERS = Span(0.7, 1.4)
"""Assumed factors between a job and its estimate, corrected by the jobs that have finished."""


class Remaining:
    """The time left of ``jobs``, given their ``estimates``; ``failures`` are the titles of jobs that will not run."""

    def __init__(
        self, jobs: Sequence[PlannedJob], estimates: Sequence[JobEstimate], failures: Collection[str] = ()
    ) -> None:
        self.jobs, self.estimates, self.failures = jobs, estimates, failures
        self.results = Path(jobs[0].run.settings.paths.results)

    def __call__(self) -> tuple[list[Span], bool]:
        """Return the seconds left of each job, and whether any finished part has corrected them."""
        records, _ = load_all(self.results / "records")
        ratios = [
            self._ratios(planned, estimated, records)
            for planned, estimated in zip(self.jobs, self.estimates, strict=True)
        ]
        of_epochs, of_evaluations = ([ratio for ratio in column if ratio] for column in zip(*ratios, strict=True))
        spans = []
        for planned, estimated, (epoch, evaluation) in zip(self.jobs, self.estimates, ratios, strict=True):
            progress = progress_of(planned.job, planned.run, records)
            progress = replace(progress, run_needed=planned.progress.run_needed)
            if progress.done or planned.title in self.failures:
                spans.append(NONE)
                continue
            epochs = _corrected(estimated.epoch, epoch, of_epochs) * (progress.total_epochs - progress.epochs)
            missing = estimated.evaluations[progress.evaluations :]
            spans.append(sum((_corrected(span, evaluation, of_evaluations) for span in missing), epochs))
        return spans, bool(of_epochs or of_evaluations)

    def _ratios(
        self, planned: PlannedJob, estimated: JobEstimate, records: Sequence[Record]
    ) -> tuple[float | None, float | None]:
        """Return how long finished epochs and evaluations took, relative to the middle of their estimates."""
        metrics = planned.run.folder / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        speeds = [speed for line in lines[-LAST_EPOCHS:] if (speed := json.loads(line).get("images_per_second"))]
        seconds = estimated.images / median(speeds) if speeds else None
        finished = records_of(planned.job, planned.run, records)
        taken = sum(record.seconds for record in finished)
        expected = sum(span.middle for span in estimated.evaluations[: len(finished)])
        return (
            seconds / estimated.epoch.middle if seconds and estimated.epoch.high else None,
            taken / expected if expected and taken else None,
        )

    def say(self) -> None:
        """Print the corrected time, if something is left and something has finished."""
        spans, corrected = self()
        if corrected and (left := sum(spans, NONE)).high > 0:
            say(f"{left} left, by the epochs and evaluations so far")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Print the corrected time after the first minute, and then less and less often, while the body runs."""
        stop = threading.Event()

        def watch() -> None:
            interval = FIRST_REPORT
            while not stop.wait(interval):
                self.say()
                interval = min(2 * interval, LONGEST_INTERVAL)

        thread = threading.Thread(target=watch, name="remaining time", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()


def _corrected(span: Span, own: float | None, others: Sequence[float]) -> Span:
    """Return ``span`` corrected by the ratio of the job's ``own`` finished parts, else by those of ``others``."""
    if own:
        return Span(span.middle, span.middle) * own
    return OF_OTHERS * (span.middle * median(others)) if others else span
