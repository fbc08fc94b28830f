"""Bounded AutoAttack against the standard suite: its time, and whether its interval holds the standard accuracy.

Small networks are trained on digits by the project's losses; two of them then hide their gradients. On one of them the
authors' package runs as well, on many images.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import pgd
from dkl.data import Batches, Images, digits
from dkl.evaluation import AutoAttackResult, autoattack
from dkl.losses import KL, IKLLoss
from dkl.models import create_model
from scripts.bench.report import Result, Row, Table, Target, show_cell

EPS, TOLERANCE, EPOCHS, SEED = 0.1, 1.0, 10, 0

FEW, MANY, TIMED = 200, 1000, "PGD-AT"
"""Images that attack each network, and those that attack the one whose times are compared with the package's."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Maps a network, images and labels to a training loss."""


def _attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    objective = partial(F.cross_entropy, target=y, reduction="sum")
    return pgd(model, x, objective, eps=EPS, step_size=EPS / 4, steps=5)


def standard(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy on clean images."""
    return F.cross_entropy(model(x), y)


def pgd_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy on adversarial images (Madry et al. 2018)."""
    return F.cross_entropy(model(_attacked(model, x, y)), y)


def trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy on clean images, and KL to the adversarial ones at weight 3."""
    natural, adversarial = model(x), model(_attacked(model, x, y))
    return F.cross_entropy(natural, y) + 3 * KL()(natural, adversarial)


def ikl() -> Loss:
    """Cross-entropy on clean images, and IKL to the adversarial ones."""
    criterion = IKLLoss(num_classes=10, wmse_weight=3.0, ce_weight=3.0)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        natural, adversarial = model(x), model(_attacked(model, x, y))
        return F.cross_entropy(natural, y) + criterion(natural, adversarial, y)

    return loss


def trained(loss: Loss) -> nn.Module:
    """A small network after training on digits by ``loss``."""
    torch.manual_seed(SEED)
    model = create_model("small_cnn", 10, in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = Batches(digits()[0], 64, shuffle=True)
    for epoch in range(EPOCHS):
        for x, y, *_ in batches.epoch(epoch):
            optimizer.zero_grad()
            # The attack is weak at first, or the network learns nothing.
            (loss if epoch > 1 else standard)(model.train(), x, y).backward()
            optimizer.step()
    return model.eval()


class Quantized(nn.Module):
    """``network`` on images rounded to nine gray levels: all its gradients are zero."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((8 * x).round() / 8 + 0 * x)
        return logits


class Saturated(nn.Module):
    """``network`` with logits 1000 times as large: the gradient of the cross-entropy is zero for most images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 1000 * self.network(x)
        return logits


def networks() -> dict[str, nn.Module]:
    """The networks by name."""
    plain, robust = trained(standard), trained(pgd_at)
    return {
        "standard training": plain,
        "PGD-AT": robust,
        "PGD-AT, logits × 1000": Saturated(robust),
        "TRADES": trained(trades),
        "IKL-AT": trained(ikl()),
        "standard training, input rounded": Quantized(plain),
    }


def _timed(model: nn.Module, images: Tensor, labels: Tensor, **suite: Any) -> tuple[AutoAttackResult, float]:
    """Attack by a suite; also returns the seconds of the processor."""
    started = time.process_time()
    found = autoattack(model, images, labels, eps=EPS, **suite)
    return found, time.process_time() - started


def measure(name: str, model: nn.Module) -> tuple[Row, bool, int]:
    """A row of the table, whether the interval holds the standard accuracy, and how many of the package's flags differ.

    The package attacks the network ``TIMED`` only.
    """
    train, test = digits()
    whole = Images(torch.cat([test.images, train.images]), torch.cat([test.labels, train.labels]))
    chosen = whole.balanced(MANY if name == TIMED else FEW)
    images, labels = chosen.images, chosen.labels
    bounded, quick = _timed(model, images, labels, attacks="bounded", tolerance=TOLERANCE)
    standard, slow = _timed(model, images, labels, attacks="standard")
    package, differing = None, 0
    if name == TIMED:
        theirs, package = _timed(model, images, labels, attacks="standard", package=True)
        differing = int((theirs.robust != standard.robust).sum())
    exact = float(standard.robust.double().mean())
    if bounded.bound is None:  # it had to attack every image
        low = high = float(bounded.robust.double().mean())
        sampled = int(bounded.flags["apgd-t"].sum())
    else:
        low, high, sampled = bounded.bound.low, bounded.bound.high, int(bounded.flags["sampled"].sum())
    holds = low - 1e-9 <= exact <= high + 1e-9
    standing = int(standard.flags["apgd-t"].sum())
    fell = standing - int(standard.robust.sum())
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
    clean = 100 * standard.accuracies["clean"]
    cells: Row = [len(labels), clean, 100 * exact, interval, str(holds).lower(), standing, fell, sampled]
    return [name, *cells, package, slow, quick], holds, differing


def run(rounds: int) -> Result:
    """Evaluate all networks by both suites."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows, held, others = [], 0, ""
    targets: list[Target] = []
    for name, model in networks().items():
        print(f"   {name}", flush=True)
        row, holds, differing = measure(name, model)
        print(f"   {', '.join(map(show_cell, row))}", flush=True)
        rows.append(row)
        held += holds
        if name == TIMED:
            package, slow, quick = (float(seconds or 0) for seconds in row[-3:])
            targets.append(Target(f"package's standard suite / bounded, CPU time, {name}", package / quick, 3))
            targets.append(Target("flags of dkl that differ from the package's", differing, 0, at_least=False))
            others = f"CPU time of {name}: package / dkl {package / slow:.2f}, dkl / bounded {slow / quick:.2f}."
    torch.set_num_threads(threads)
    columns = [
        "network",
        "images",
        "clean",
        "AutoAttack",
        "bounded",
        "holds",
        "before fab-t",
        "fell to fab-t or square",
        "sampled",
    ]
    columns += ["CPU s, package", "CPU s, standard", "CPU s, bounded"]
    targets.append(Target("intervals that hold the standard accuracy", float(held), float(len(rows))))
    notes = [
        f"SmallCNN, trained on the training digits; Linf {EPS}, tolerance {TOLERANCE:g} points; accuracies in percent. "
        "One thread. Each suite starts anew. Many images are attacked where the package is timed, training digits "
        f"among them. {others}",
        "Before fab-t: images that apgd-ce and apgd-t left correct; fell then: those that fab-t and square fooled. If "
        "a sample cannot narrow the interval enough, bounded attacks all images, and its interval is a point.",
    ]
    table = Table("Six networks", columns, rows)
    return Result("bounded", "Bounded AutoAttack against the standard suite", 1, [table], targets, notes)
