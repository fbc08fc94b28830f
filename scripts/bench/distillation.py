"""One step of distillation on CIFAR-100, ResNet-32x4 to ResNet-8x4: IKL-KD against KD and against the pairwise form.

Times the loop that ``dkl train`` runs. The pairwise form is a transcription of the official distiller. Before that, the
weights of IKL-KD in both forms are compared after two steps in float64.
"""

import copy
import io
from collections.abc import Callable

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import SGD

from dkl.console import Bar
from dkl.data import Batches, Batching, Images
from dkl.losses import IKL, KD, PairLoss, Weighting
from dkl.models import create_model
from dkl.tasks import Distillation
from dkl.training.loop import train_epoch
from scripts.bench.report import Result, Row, Table, Target
from scripts.bench.timing import alternate
from tests.official.distillation import ikl

TEACHER, STUDENT, CLASSES, BATCH, CHECKED_BATCH = "cifar_resnet32x4", "cifar_resnet8x4", 100, 64, 4
OPTIMIZER = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
SILENT = Console(file=io.StringIO())

IKL_KD = IKL(wmse_weight=8.0, ce_weight=1.0, ce_temperature=4.0, sample_temperature=100.0, weighting="sample")


class Pairwise:
    """``IKL_KD`` computed from B×C×C pairwise gaps."""

    weighting: Weighting = "sample"

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        settings = {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "t2": 100.0, "gi": False}
        return ikl(adversarial_logits, natural_logits, torch.empty(0), **settings)


METHODS: dict[str, tuple[PairLoss, float]] = {
    "KD": (KD(weight=0.9, logit_temperature=4.0), 0.1),
    "IKL-KD": (IKL_KD, 1.0),
    "IKL-KD, pairwise form": (Pairwise(), 1.0),
}
"""Name -> loss, and the weight of the labels' cross-entropy."""


def make_data(count: int) -> Images:
    """``count`` random 32×32 images."""
    return Images(torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % CLASSES)


def training(student: nn.Module, teacher: nn.Module, method: str, batches: Batches) -> Callable[[], nn.Module]:
    """A function that trains a copy of ``student`` for one epoch of ``batches`` and returns it."""
    model, (loss, ce_weight) = copy.deepcopy(student), METHODS[method]
    task = Distillation(model, copy.deepcopy(teacher), loss, num_classes=CLASSES, ce_weight=ce_weight, warmup_epochs=0)
    optimizer = SGD(model.parameters(), **OPTIMIZER)

    def epoch() -> nn.Module:
        train_epoch(task, batches, optimizer, epoch=1, epochs=1, bar=Bar("", len(batches), 0, SILENT))
        return model

    return epoch


def verify(student: nn.Module, teacher: nn.Module) -> float:
    """Largest difference of weights after two steps in float64. Raises RuntimeError if it exceeds rounding."""
    batches = Batches(make_data(2 * CHECKED_BATCH), Batching(CHECKED_BATCH, dtype=torch.float64))
    student, teacher = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    one, other = (training(student, teacher, name, batches)() for name in ("IKL-KD", "IKL-KD, pairwise form"))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    found = max(float((a - b).detach().abs().max()) for a, b in pairs)
    if found > 1e-10:
        raise RuntimeError(f"the pairwise step and the closed form's differ by {found}; their times cannot be compared")
    return found


def run(rounds: int) -> Result:
    """Compare, then time the three steps."""
    teacher, student = (create_model(name, num_classes=CLASSES) for name in (TEACHER, STUDENT))
    found = verify(student, teacher)
    batches = Batches(make_data(BATCH), Batching(BATCH))
    variants: dict[str, Callable[[], object]] = {name: training(student, teacher, name, batches) for name in METHODS}
    print(f"   timing {'; '.join(variants)}", flush=True)
    timings = alternate(variants, rounds)
    kd, closed, pairwise = timings.values()
    rows: list[Row] = [
        [name, time.median, time.minimum, time.median / kd.median, time.minimum / kd.minimum]
        for name, time in timings.items()
    ]
    columns = ["step", "s, median", "s, minimum", "over KD, medians", "over KD, minima"]
    targets = [
        Target("IKL-KD / KD, time of a step", closed.median / kd.median, 1.03, at_least=False),
        Target("pairwise form / IKL-KD, time of a step", pairwise.median / closed.median, 1.0),
    ]
    notes = [
        f"{TEACHER} to {STUDENT}, batch {BATCH}, {CLASSES} classes, random 32×32 images, SGD; each variant trains its "
        "own copy of one student.",
        f"Weights of IKL-KD in both forms differ by {found:.1e} after two steps of {CHECKED_BATCH} in float64.",
    ]
    samples = {name: time.samples for name, time in timings.items()}
    title = "Distillation step: IKL-KD against KD and the pairwise form"
    return Result("distillation", title, rounds, [Table("One step, float32", columns, rows)], targets, notes, samples)
