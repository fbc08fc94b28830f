"""Flags and times of AutoAttack against the authors' package, into ``results/benchmarks/autoattack.md``.

    python -m scripts.bench.certificate

Small networks, one thread, processor time. The same comparison for a network of your own is ``dkl.attacks.compare``.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dkl.attacks.compare import Comparison, compare
from dkl.data import digits
from dkl.runtime.device import describe
from scripts.bench.autoattack import trained
from scripts.bench.report import FOLDER


@dataclass(frozen=True)
class Case:
    """A comparison; ``steps`` and ``queries`` of AutoAttack's 100 and 5000 are taken."""

    network: str
    norm: str
    eps: str
    version: str = "standard"
    images: int = 120
    batch_size: int = 50
    steps: int = 8
    queries: int = 150


FLAGS = (
    *(Case(name, "Linf", "0.1") for name in ("small_cnn", "cifar_resnet8")),
    *(Case(name, "L2", "0.6") for name in ("small_cnn", "cifar_resnet8")),
    Case("small_cnn", "Linf", "0.1", "plus", images=60),
    Case("small_cnn", "L2", "0.6", "plus", images=60),
    Case("small_cnn", "Linf", "0.1", "rand", images=60),
    Case("small_cnn", "L1", "1", images=30),
)
"""Digits, which the networks classify after adversarial training; the radius fools a part of them."""

TIMED = (
    Case("cifar_resnet8", "Linf", "0.1", images=100, steps=100, queries=5000),
    Case("cifar_resnet8", "Linf", "0.1", images=250, batch_size=250, steps=100, queries=5000),
    Case("preact_resnet18_w16", "Linf", "0.1", images=100, steps=100, queries=5000),
    Case("preact_resnet18_w16", "Linf", "0.1", images=250, batch_size=250, steps=100, queries=5000),
    Case("preact_resnet18", "Linf", "0.1", images=20, steps=100, queries=5000),
)
"""All steps of AutoAttack."""


def prepare(case: Case, networks: dict[str, nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, images and labels of ``case``."""
    if case.network not in networks:
        networks[case.network] = trained(case.network)
    test = digits()[1].balanced(case.images)
    return networks[case.network], test.images.float() / 255, test.labels


def row(case: Case, found: Comparison) -> str:
    """A line of the table."""
    attacks = ", ".join(f"{each} {found.package[each] / found.ours[each]:.2f}" for each in found.ours)
    seconds = (sum(each.values()) for each in (found.package, found.ours, found.floor))
    taken = f"{case.steps} / {case.queries}"
    cells = [case.network, case.norm, case.eps, case.version, case.images, case.batch_size, taken]
    cells += [sum(found.compared.values()), sum(found.differing.values())]
    cells += [f"{list(found.robust.values())[-1]:.1%}", *(f"{each:.1f}" for each in seconds)]
    cells += [f"{found.ratio:.2f}", attacks]
    return "| " + " | ".join(map(str, cells)) + " |"


def page(rows: list[str]) -> str:
    """The page with the ``rows`` that are done."""
    columns = ["network", "norm", "eps", "version", "images", "batch", "steps / queries", "flags", "differ", "robust"]
    head = "| " + " | ".join([*columns, "package s", "ours s", "floor s", "ratio", "by attack"]) + " |"
    lines = [
        "# AutoAttack: dkl against the authors' package",
        "",
        "Written by `python -m scripts.bench.certificate`. For a network of your own:",
        "`python -m dkl.attacks.compare model=package.module:function images=FILE norm=Linf eps=8/255`.",
        "",
        f"{describe(torch.device('cpu'))}, one thread, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}. The "
        "ratio is the package's processor time divided by ours, checks of the network included. `flags` counts the "
        "images that each attack got, summed over attacks, and `differ` those with another flag. `steps / queries` are "
        "those of every attack; AutoAttack takes 100 / 5000. The floor is the passes that ours makes, at the time of "
        f"its fullest pass. The machine was shared with other work: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} "
        "cores.",
        "",
        "For L1, `standard` is the package's own version of it on both sides: five restarts of apgd-ce, five targets "
        "of apgd-t, and larger steps first (`use_largereps`). Ours runs the package's code for it, with its speed.",
        "",
        "Images are digits of 8×8, and the networks trained adversarially on them.",
        "",
        head,
        "|" + "---|" * (head.count("|") - 1),
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare all cases; write the page after each."""
    torch.set_num_threads(1)
    networks: dict[str, nn.Module] = {}
    rows: list[str] = []
    for case in (*FLAGS, *TIMED):
        model, x, y = prepare(case, networks)
        options = {"norm": case.norm, "eps": case.eps, "version": case.version, "batch_size": case.batch_size}
        rows.append(row(case, compare(model, x, y, **options, steps=case.steps, queries=case.queries)))
        print(rows[-1], flush=True)
        Path(FOLDER / "autoattack.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
