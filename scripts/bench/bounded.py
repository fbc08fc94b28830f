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
from pyautoattack import AutoAttack
from torch import Tensor, nn

from dkl.attacks import pgd
from dkl.data import Batches, Batching, Images, digits
from dkl.evaluation import AutoAttackResult, autoattack
from dkl.losses import KL, IKLLoss
from dkl.models import create_model
from scripts.bench.report import Result, Row, Table, Target, show_cell

EPS, TOLERANCE, EPOCHS, SEED = 0.1, 1.0, 10, 0

FEW, MANY, BATCH = 120, 1000, 200
"""Images with which each network is attacked; those with which one is, for the times; images per batch."""

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
    batches = Batches(digits()[0], Batching(64, shuffle=True))
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


def measure(name: str, model: nn.Module) -> tuple[Row, bool]:
    """A row of the table, and whether the interval holds the standard accuracy."""
    chosen = digits()[1].balanced(FEW)
    images, labels = chosen.images, chosen.labels
    bounded, quick = _timed(model, images, labels, attacks="bounded", tolerance=TOLERANCE)
    standard, slow = _timed(model, images, labels, attacks="standard")
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
    cells: Row = [clean, 100 * exact, interval, str(holds).lower(), standing, fell, sampled]
    return [name, *cells, slow, quick], holds


def run(rounds: int) -> Result:
    """Evaluate all networks by both suites."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows, held = [], 0
    for name, model in networks().items():
        print(f"   {name}", flush=True)
        row, holds = measure(name, model)
        print(f"   {', '.join(map(show_cell, row))}", flush=True)
        rows.append(row)
        held += holds
    torch.set_num_threads(threads)
    columns = [
        "network",
        "clean",
        "AutoAttack",
        "bounded",
        "holds",
        "before fab-t",
        "fell to fab-t or square",
        "sampled",
    ]
    columns += ["CPU s, standard", "CPU s, bounded"]
    targets = [Target("intervals that hold the standard accuracy", float(held), float(len(rows)))]
    notes = [
        f"SmallCNN, trained on the training digits; {FEW} test digits, Linf {EPS}, tolerance {TOLERANCE:g} points; "
        "accuracies in percent. One thread. Both suites start anew.",
        "Before fab-t: images that apgd-ce and apgd-t left correct; fell then: those that fab-t and square fooled. If "
        "a sample cannot narrow the interval enough, bounded attacks all images, and its interval is a point.",
    ]
    table = Table("Six networks", columns, rows)
    return Result("bounded", "Bounded AutoAttack against the standard suite", 1, [table], targets, notes)


def run_timed(rounds: int) -> Result:
    """Time bounded AutoAttack against the authors' package on many images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train, test = digits()
    whole = Images(torch.cat([test.images, train.images]), torch.cat([test.labels, train.labels])).balanced(MANY)
    model, x = trained(pgd_at), whole.images.float() / 255
    bounded, quick = _timed(model, whole.images, whole.labels, attacks="bounded", tolerance=TOLERANCE)
    started = time.process_time()
    package = AutoAttack(model, norm="Linf", eps=EPS, seed=SEED, device="cpu", version="standard")
    adversarial = package.run_standard_evaluation(x, whole.labels, batch_size=BATCH)[0]
    slow = time.process_time() - started
    torch.set_num_threads(threads)
    exact = float((model(adversarial).argmax(1) == whole.labels).double().mean())
    assert bounded.bound is not None
    low, high = bounded.bound.low, bounded.bound.high
    shares = {name: seconds / sum(bounded.seconds.values()) for name, seconds in bounded.seconds.items()}
    rows: list[Row] = [
        ["package, standard", f"{100 * exact:.2f}", MANY, slow],
        ["dkl, bounded", f"[{100 * low:.2f}, {100 * high:.2f}]", int(bounded.flags["sampled"].sum()), quick],
    ]
    columns = ["suite", "AutoAttack", "images for fab-t and square, at most", "CPU s"]
    targets = [
        Target("package's standard suite / bounded, CPU time", slow / quick, 3),
        Target("intervals that hold the package's accuracy", float(low - 1e-9 <= exact <= high + 1e-9), 1),
    ]
    notes = [
        f"SmallCNN after PGD-AT on digits; {MANY} digits, training digits among them, Linf {EPS}, tolerance "
        f"{TOLERANCE:g} points; {int(bounded.flags['apgd-t'].sum())} images are correct after apgd-ce and apgd-t. One "
        "thread. The package attacks a network whose parameters are not frozen, as its users do.",
        f"Shares of the time of bounded: {', '.join(f'{name} {100 * share:.0f} %' for name, share in shares.items())}.",
    ]
    table = Table("PGD-AT", columns, rows)
    return Result("bounded_timed", "Bounded AutoAttack against the authors' package", 1, [table], targets, notes)
