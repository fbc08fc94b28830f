"""Sharding of an evaluation: the batches of every attack over two processes, against one process.

Other load on a machine makes its clock useless for this, so processor time is compared. The processes wait for each
other after every attack. With two idle cores an attack takes as long as its slower process:

    efficiency = T_1 / (2 Σ_attacks max_process T)
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dkl.attacks import make_attack
from dkl.attacks.autoattack.attack_loop import AttackLoop
from dkl.attacks.autoattack.suite import run_attacks
from dkl.attacks.autoattack.task import AttackTask
from dkl.data import digits
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.runtime.distributed import rank, spawn_processes
from dkl.threat import AUTOATTACK
from scripts.bench.autoattack import CPU, SEED, trained
from scripts.bench.report import Result, Row, Table, Target

IMAGES, BATCH, EPS = 200, 10, 0.1


def _clocked(perturb: Callable[..., Tensor], seconds: list[float]) -> Callable[..., Tensor]:
    def attack(*args: Tensor, **places: object) -> Tensor:
        started = time.process_time()
        result = perturb(*args, **places)
        seconds.append(time.process_time() - started)
        return result

    return attack


def evaluate(weights: Path, folder: Path) -> None:
    """Attack this process's share of the batches; write the processor seconds of each attack, and of all else."""
    torch.set_num_threads(1)
    model = torch.load(weights, weights_only=False)  # written by ``run`` a moment ago
    test = digits()[1].balanced(IMAGES)
    attacks = {name: make_attack(name, model, norm="linf", eps=EPS, seed=SEED) for name in AUTOATTACK}
    spent: dict[str, list[float]] = {name: [] for name in attacks}
    clocked = {name: _clocked(perturb, spent[name]) for name, perturb in attacks.items()}
    protocol = EvaluationProtocol(list(AUTOATTACK), "linf", EPS, str(EPS), None, BATCH, SEED)
    task = AttackTask(
        model=model,
        images=test.images,
        labels=test.labels,
        num_classes=10,
        protocol=protocol,
        device=CPU,
        folder=folder / "state",
    )
    model(test.images[:BATCH].float() / 255)  # what only the first pass does
    started = time.process_time()
    state = run_attacks(AttackLoop.of(task), clocked)
    total = time.process_time() - started
    each = [sum(spent[name]) for name in AUTOATTACK]
    np.savez(folder / f"{rank()}", seconds=np.array([*each, total - sum(each)]), flags=state["square"].flags)


def run(rounds: int) -> Result:
    """Evaluate in one process, then in two."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(trained("small_cnn"), folder / "model.pt")
        os.environ["OMP_NUM_THREADS"] = "1"
        found = {}
        for processes in (1, 2):
            place = folder / str(processes)
            place.mkdir()
            spawn_processes(evaluate, (folder / "model.pt", place), processes=processes, device="cpu")
            found[processes] = [np.load(place / f"{number}.npz") for number in range(processes)]
    alone = found[1][0]["seconds"]
    shares = np.stack([each["seconds"] for each in found[2]])
    efficiency = float(alone.sum() / (2 * shares.max(0).sum()))
    differing = float((found[1][0]["flags"] != found[2][0]["flags"]).sum())
    columns = ["processes", *AUTOATTACK, "else", "all"]
    rows: list[Row] = [
        [label, *seconds.tolist(), float(seconds.sum())]
        for label, seconds in (("one", alone), ("first of two", shares[0]), ("second of two", shares[1]))
    ]
    targets = [
        Target("efficiency of two processes, CPU time", efficiency, 0.9),
        Target("flags that differ from those of one process", differing, 0, at_least=False),
    ]
    notes = [
        f"SmallCNN, standard AutoAttack, Linf {EPS}, {IMAGES} digits in batches of {BATCH}; one thread per process.",
        "Efficiency: the seconds of one process, divided by twice the sum over the attacks of the slower process. The "
        "start of the processes is not counted: each imports torch and timm once.",
    ]
    table = Table("CPU seconds", columns, rows)
    return Result("sharding", "An evaluation in two processes", 1, [table], targets, notes)
