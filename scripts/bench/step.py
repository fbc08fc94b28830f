"""One step of adversarial training with IKL: the official code, transcribed, against this project's loop and task.

Before anything is timed, five float64 steps of both are compared: images, loss, weights and BatchNorm buffers.
"""

import copy
import io
from collections.abc import Callable

import torch
from rich.console import Console
from torch import nn
from torch.optim import SGD

from dkl.attacks import TrainingAttack
from dkl.console import Bar
from dkl.data import Batches, Images
from dkl.losses import IKL
from dkl.models import create_model
from dkl.tasks import AdversarialTraining
from dkl.training.loop import train_epoch
from scripts.bench.report import Result, Row, Table, Target
from scripts.bench.timing import Timing, alternate
from tests.reference import OfficialTraining, counted_forwards, differences

MODEL, CLASSES, BATCH, STEPS, EPS, SEED = "wrn16_2", 100, 32, 10, 8 / 255, 0
CHECKED_BATCH, CHECKED_SIZE = 20, 16  # float64 convolutions are slow on a CPU; five batches of 20 show all classes
SILENT = Console(file=io.StringIO())
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last


def make_data(count: int, size: int = 32) -> Images:
    """``count`` random images, labelled 0, 1, 2 … in turn."""
    return Images(torch.randint(256, (count, 3, size, size), dtype=torch.uint8), torch.arange(count) % CLASSES)


def optimizer(model: nn.Module) -> SGD:
    """The official optimiser, at a rate that suits random images."""
    return SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


class Ours:
    """``AdversarialTraining`` on a copy of ``model``, in the loop that ``dkl train`` runs, one epoch over ``data``."""

    def __init__(
        self,
        model: nn.Module,
        data: Images,
        memory_format: torch.memory_format = CONTIGUOUS,
        *,
        batch_size: int = BATCH,
        autocast: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = copy.deepcopy(model).to(dtype).to(memory_format=memory_format)
        attack = TrainingAttack(
            eps=EPS,
            schedule="fixed",
            steps=STEPS,
            relative_step=0.25,
            ramp=False,
            objective=IKL(wmse_weight=1.0, ce_weight=1.0),
        )
        self.task = AdversarialTraining(self.model, IKL(), attack, num_classes=CLASSES, seed=SEED)
        self.task.prior.to(dtype).table.fill_(1 / CLASSES)
        self.optimizer, self.autocast = optimizer(self.model), autocast
        self.batches = Batches(data, batch_size, dtype=dtype, memory_format=memory_format)

    def epoch(self) -> float:
        """Train; returns the mean loss."""
        bar = Bar("", len(self.batches), 0, SILENT)
        task, batches, optimizer = self.task, self.batches, self.optimizer
        return train_epoch(task, batches, optimizer, epoch=1, epochs=1, bar=bar, autocast=self.autocast)["loss"]


def official(model: nn.Module, dtype: torch.dtype = torch.float32) -> OfficialTraining:
    """The official step on a copy of ``model``."""
    model = copy.deepcopy(model).to(dtype)
    return OfficialTraining(
        model=model,
        optimizer=optimizer(model),
        generator=torch.Generator().manual_seed(SEED),
        num_classes=CLASSES,
        eps=EPS,
        step_size=0.25 * EPS,
        steps=STEPS,
    )


def verify(model: nn.Module, memory_format: torch.memory_format) -> dict[str, float]:
    """Largest differences over five steps in float64; raises RuntimeError where they are more than rounding."""
    print(f"   comparing five steps in float64, {memory_format}", flush=True)
    data = make_data(5 * CHECKED_BATCH, CHECKED_SIZE)
    ours = Ours(model, data, memory_format, batch_size=CHECKED_BATCH, dtype=torch.float64)
    theirs = official(model, torch.float64)
    batches = Batches(data, CHECKED_BATCH, dtype=torch.float64)
    found = differences(ours.model, ours.epoch, theirs.model, lambda: theirs.epoch(batches.epoch()))
    if max(found.values()) > 1e-10:
        raise RuntimeError(f"the official step and dkl's differ: {found}; their times cannot be compared")
    return found


def count(model: nn.Module, run: Callable[[], object]) -> int:
    """Forward passes of ``model`` in ``run``."""
    with counted_forwards(model) as sizes:
        run()
    return len(sizes)


def bf16_change(model: nn.Module, data: Images) -> float:
    """Relative change that bfloat16 makes in the loss of one step: same weights, batch and noise."""
    plain, half = (Ours(model, data, CHANNELS_LAST, autocast=autocast).epoch() for autocast in (False, True))
    return abs(half - plain) / abs(plain)


def run(rounds: int) -> Result:
    """Measure."""
    model, data = create_model(MODEL, num_classes=CLASSES), make_data(BATCH)
    found = {"contiguous": verify(model, CONTIGUOUS), "channels_last": verify(model, CHANNELS_LAST)}
    reference = official(model)
    images, labels, *_ = next(Batches(data, BATCH).epoch())
    ours = {
        "dkl, contiguous": Ours(model, data),
        "dkl, channels_last": Ours(model, data, CHANNELS_LAST),
        "dkl, channels_last, bf16": Ours(model, data, CHANNELS_LAST, autocast=True),
    }
    variants: dict[str, Callable[[], object]] = {"official": lambda: reference.step(images, labels)}
    variants |= {name: trained.epoch for name, trained in ours.items()}
    forwards = {name: count(ours[name].model if name in ours else reference.model, variants[name]) for name in variants}
    print(f"   timing: {'; '.join(variants)}", flush=True)
    timings = alternate(variants, rounds)
    return _result(rounds, timings, forwards, _equality(found), bf16_change(model, data))


def _equality(found: dict[str, dict[str, float]]) -> Table:
    what = f"5 steps, float64, batches of {CHECKED_BATCH}, {CHECKED_SIZE}×{CHECKED_SIZE}"
    rows: list[Row] = [[name, *values.values()] for name, values in found.items()]
    return Table(f"Largest |Δ| to the official code: {what}", ["dkl", *found["contiguous"]], rows)


def _result(rounds: int, timings: dict[str, Timing], forwards: dict[str, int], equal: Table, bf16: float) -> Result:
    base = timings["official"]
    rows: list[Row] = [
        [name, time.median, time.minimum, base.median / time.median, base.minimum / time.minimum, forwards[name]]
        for name, time in timings.items()
    ]
    columns = ["variant", "s, median", "s, minimum", "speed-up, medians", "speed-up, minima", "forward passes"]
    speed_up = {name: base.median / time.median for name, time in timings.items()}
    targets = [
        Target("speed-up, channels_last float32", speed_up["dkl, channels_last"], 1.4),
        Target("speed-up, channels_last bf16", speed_up["dkl, channels_last, bf16"], 2.2),
        Target("forward passes of a dkl step", forwards["dkl, contiguous"], 1 + STEPS + 2, at_least=False),
    ]
    notes = [
        f"WRN-16-2, batch {BATCH}, {CLASSES} classes, random 32×32 images, {STEPS} attack steps of eps/4, eps 8/255, "
        "IKL (20, 5), attack IKL (1, 1), SGD, no AWP; each variant trains its own copy of one model.",
        f"bfloat16 autocast, attack included, changes the loss of the first step by {bf16:.1e} of it.",
    ]
    title = "Adversarial training step: against the official code, transcribed"
    samples = {name: time.samples for name, time in timings.items()}
    return Result("step", title, rounds, [Table("One step", columns, rows), equal], targets, notes, samples)
