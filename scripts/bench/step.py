"""One step of adversarial training with IKL and AWP: the official code, transcribed, against this project's loop.

First five float64 steps of both are compared (images, loss, weights and BatchNorm buffers) and their forward passes
counted. Memory is that of a network and two training steps, with and without AWP.
"""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from torch import nn
from torch.optim import SGD

from dkl.attacks import TrainingAttack
from dkl.console import Bar
from dkl.data import Batches, Batching, Images
from dkl.losses import IKL
from dkl.models import create_model
from dkl.tasks import AWP, TradesTraining
from dkl.training.loop import train_epoch
from scripts.bench.report import Result, Row, Table, Target
from scripts.bench.timing import Timing, alternate, peak_bytes
from tests.official.adversarial import IKL_CIFAR100, OfficialTraining, Training, counted_forwards, differences

MODEL, CLASSES, BATCH, EPS, RATE, GAMMA, SEED = "wrn16_2", 100, 32, 8 / 255, 0.01, 0.005, 0
CHECKED_BATCH, CHECKED_SIZE = 4, 16  # float64 convolutions are slow on a CPU
SILENT = Console(file=io.StringIO())
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last


@dataclass(frozen=True)
class Attack:
    """``steps`` steps of ``relative`` times eps."""

    steps: int
    relative: float

    def __str__(self) -> str:
        divisor = round(1 / self.relative)
        return f"{self.steps} × eps/{divisor}" if divisor > 1 else f"{self.steps} × eps"


ATTACKS = (Attack(5, 0.5), Attack(10, 0.25))  # the official code's, and that of TRADES


def make_data(count: int, size: int = 32) -> Images:
    """``count`` random images, labeled 0, 1, 2 … in turn."""
    return Images(torch.randint(256, (count, 3, size, size), dtype=torch.uint8), torch.arange(count) % CLASSES)


class Ours:
    """``TradesTraining`` on a copy of ``model``, in the loop that ``dkl train`` runs, one epoch over ``data``."""

    def __init__(
        self,
        model: nn.Module,
        data: Images,
        attack: Attack,
        memory_format: torch.memory_format = CONTIGUOUS,
        *,
        batch_size: int = BATCH,
        autocast: bool = False,
        dtype: torch.dtype = torch.float32,
        gamma: float = GAMMA,
    ) -> None:
        self.model = copy.deepcopy(model).to(dtype).to(memory_format=memory_format)
        training_attack = TrainingAttack(
            eps=EPS,
            schedule="fixed",
            steps=attack.steps,
            relative_step=attack.relative,
            ramp=False,
            objective=IKL(wmse_weight=1.0, ce_weight=1.0),
        )
        awp = AWP(gamma=gamma, start=1)
        self.task = TradesTraining(self.model, IKL(), training_attack, num_classes=CLASSES, awp=awp, seed=SEED)
        self.optimizer = SGD(self.model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
        self.autocast = autocast
        self.batches = Batches(data, Batching(batch_size, dtype=dtype, memory_format=memory_format))

    def epoch(self) -> float:
        """Train; returns the mean loss."""
        bar = Bar("", len(self.batches), 0, SILENT)
        task, batches, optimizer = self.task, self.batches, self.optimizer
        return train_epoch(task, batches, optimizer, epoch=1, epochs=1, bar=bar, autocast=self.autocast)["loss"]


class Official:
    """The official training on a copy of ``model``, one epoch over ``data``, at a rate that suits random images."""

    def __init__(
        self,
        model: nn.Module,
        data: Images,
        attack: Attack,
        *,
        batch_size: int = BATCH,
        dtype: torch.dtype = torch.float32,
        gamma: float = GAMMA,
    ) -> None:
        self.model = copy.deepcopy(model).to(dtype)
        recipe = replace(
            IKL_CIFAR100,
            budget=lambda epoch, epochs: (EPS, attack.relative * EPS, attack.steps),
            rate=lambda epoch, epochs: RATE,
            awp_gamma=gamma,
            awp_warmup=1,
        )
        self.training = OfficialTraining(self.model, recipe, num_classes=CLASSES, epochs=1, seed=SEED)
        self.optimizer = self.training.optimizer
        self.batches = Batches(data, Batching(batch_size, dtype=dtype))
        self.models = [self.model, self.training.awp.proxy] if self.training.awp else [self.model]

    def epoch(self) -> float:
        """Train; returns the mean loss."""
        return self.training.epoch(self.batches.epoch(), 1)

    def step(self) -> float:
        """The first batch, with the uniform prior. Classes without samples would make it NaN."""
        images, labels, views, *_ = next(self.batches.epoch())
        return self.training.step(images, labels, views, 1)


def verify(model: nn.Module, attack: Attack, memory_format: torch.memory_format) -> dict[str, float]:
    """Largest differences over five steps in float64; raises RuntimeError if they exceed rounding."""
    print(f"   comparing five steps in float64, attack {attack}, {memory_format}", flush=True)
    data = make_data(5 * CHECKED_BATCH, CHECKED_SIZE)
    ours = Ours(model, data, attack, memory_format, batch_size=CHECKED_BATCH, dtype=torch.float64)
    theirs = Official(model, data, attack, batch_size=CHECKED_BATCH, dtype=torch.float64)
    found = differences(*(Training(one.model, one.optimizer, one.epoch) for one in (ours, theirs)))
    if max(found.values()) > 1e-10:
        raise RuntimeError(f"the official step and dkl's differ: {found}; their times cannot be compared")
    return found


def count_forwards(ours: Ours, theirs: Official, attack: Attack) -> tuple[int, int]:
    """Forward passes of one step, of dkl and the official code. Raises RuntimeError if they are not as expected."""
    with counted_forwards(ours.model) as our_sizes:
        ours.epoch()
    with counted_forwards(*theirs.models) as their_sizes:
        theirs.step()
    counts, expected = (len(our_sizes), len(their_sizes)), (1 + attack.steps + 2 + 2, 2 * attack.steps + 2 + 2)
    if counts != expected:
        raise RuntimeError(f"a step takes {counts} forward passes, not {expected}")
    return counts


def bf16_change(model: nn.Module, data: Images) -> float:
    """Relative change of one step's loss under bfloat16, with the same weights, batch and noise."""
    plain, half = (
        Ours(model, data, ATTACKS[0], CHANNELS_LAST, autocast=autocast).epoch() for autocast in (False, True)
    )
    return abs(half - plain) / abs(plain)


def memory(model: nn.Module, data: Images) -> Table:
    """Peaks of setting up training and taking two steps, so that what AWP keeps between steps is counted.

    With one attack step the peak is in weight perturbation or training. With more the official attack, which keeps the
    graph of the natural logits until the next step has made its own, is the peak, and hides some of what AWP holds.
    """
    size = sum(parameter.nbytes for parameter in model.parameters())

    def official(attack: Attack, gamma: float) -> None:
        training = Official(model, data, attack, gamma=gamma)
        for _ in range(2):
            training.step()

    def ours(attack: Attack, gamma: float) -> None:
        training = Ours(model, data, attack, gamma=gamma)
        for _ in range(2):
            training.epoch()

    rows: list[Row] = []
    for attack in (Attack(1, 1.0), ATTACKS[0]):
        print(f"   memory, attack {attack}", flush=True)
        for name, train in {"official, proxy model": official, "dkl, in place": ours}.items():
            without, awp = (peak_bytes(partial(train, attack, gamma)) for gamma in (0.0, GAMMA))
            rows.append(
                [f"{name}; attack {attack}", without / 1e6, awp / 1e6, (awp - without) / 1e6, (awp - without) / size]
            )
    title = f"Peak memory of training, batch {BATCH}, float32, contiguous"
    return Table(title, ["variant", "MB without AWP", "MB with AWP", "MB more", "× the parameters' bytes"], rows)


@dataclass(frozen=True)
class Measured:
    """The variants of one attack."""

    attack: Attack
    timings: dict[str, Timing]
    forwards: tuple[int, int]

    def speed_up(self, name: str, what: str = "median") -> float:
        """How many times faster ``name`` is than the official step."""
        return getattr(self.timings["official"], what) / getattr(self.timings[name], what)

    def rows(self) -> list[Row]:
        """One row per variant, with its settings."""
        ours, theirs = self.forwards
        return [
            [
                f"{name}; attack {self.attack}",
                time.median,
                time.minimum,
                self.speed_up(name),
                self.speed_up(name, "minimum"),
                theirs if name == "official" else ours,
            ]
            for name, time in self.timings.items()
        ]

    def targets(self) -> list[Target]:
        """The bounds that were set before measuring."""
        return [
            Target(f"speed-up, attack {self.attack}, {what}", self.speed_up(f"dkl, {what}"), bound)
            for what, bound in (("channels_last float32", 1.4), ("channels_last bf16", 2.2))
        ]


def measure(model: nn.Module, data: Images, attack: Attack, rounds: int) -> Measured:
    """Count forward passes, then time the official step and three of dkl."""
    official = Official(model, data, attack)
    ours = {
        "dkl, contiguous float32": Ours(model, data, attack),
        "dkl, channels_last float32": Ours(model, data, attack, CHANNELS_LAST),
        "dkl, channels_last bf16": Ours(model, data, attack, CHANNELS_LAST, autocast=True),
    }
    forwards = count_forwards(ours["dkl, contiguous float32"], official, attack)
    variants: dict[str, Callable[[], object]] = {"official": official.step}
    variants |= {name: trained.epoch for name, trained in ours.items()}
    print(f"   timing, attack {attack}: {'; '.join(variants)}", flush=True)
    return Measured(attack, alternate(variants, rounds), forwards)


def run(rounds: int) -> Result:
    """Compare, count, time, and measure memory."""
    model, data = create_model(MODEL, num_classes=CLASSES), make_data(BATCH)
    formats = {"contiguous": CONTIGUOUS, "channels_last": CHANNELS_LAST}
    found = {
        f"{name}; attack {attack}": verify(model, attack, kind) for attack in ATTACKS for name, kind in formats.items()
    }
    measured = [measure(model, data, attack, rounds) for attack in ATTACKS]
    tables = [_speed(measured), _equality(found), memory(model, data)]
    targets = [target for one in measured for target in one.targets()]
    notes = [
        f"WRN-16-2, batch {BATCH}, {CLASSES} classes, random 32×32 images, eps 8/255, IKL (20, 5), attack IKL (1, 1), "
        f"AWP {GAMMA}, SGD; each variant trains its own copy of one model.",
        "Forward passes with K attack steps: official 2 K + 2 (proxy) + 2, dkl 1 + K + 2 (AWP) + 2; counted.",
        f"bfloat16 autocast, attack included, changes the loss of the first step by {bf16_change(model, data):.1e} "
        "of it.",
    ]
    title = "Adversarial training step with AWP: against the official code, transcribed"
    samples = {f"{name}; {one.attack}": time.samples for one in measured for name, time in one.timings.items()}
    return Result("step", title, rounds, tables, targets, notes, samples)


def _equality(found: dict[str, dict[str, float]]) -> Table:
    what = f"5 steps, float64, batches of {CHECKED_BATCH}, {CHECKED_SIZE}×{CHECKED_SIZE}"
    rows: list[Row] = [[name, *values.values()] for name, values in found.items()]
    return Table(f"Largest |Δ| to the official code: {what}", ["dkl", *next(iter(found.values()))], rows)


def _speed(measured: list[Measured]) -> Table:
    columns = ["variant", "s, median", "s, minimum", "speed-up, medians", "speed-up, minima", "forward passes"]
    return Table("One step, AWP included", columns, [row for one in measured for row in one.rows()])
