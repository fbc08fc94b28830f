"""Two processes that share each batch take the steps of one process, to float64 rounding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkl.data import Batch
from dkl.losses import GKL, KD, KL, WeightedSum
from dkl.runtime.distributed import rank, spawn_processes, sum_gradients, world
from dkl.tasks import AWP, Distillation, Progress, Task
from tests.tasks.common import CLASSES, make_attack, make_batch, make_task, share_of, two_views

pytestmark = pytest.mark.slow

SIZE = 9


def make_plain_net() -> nn.Module:
    """A float64 network without BatchNorm, which would see only a process's share."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    with torch.no_grad():
        net[3].weight *= 5
    return net


def make_gkl(**settings: Any) -> Task:
    loss = GKL(wmse_weight=1000.0, ce_weight=2.0, gamma=2.0, **settings)
    attack = make_attack(objective=GKL(gamma=0.5, **settings))
    task = make_task(make_plain_net(), loss, attack, awp=AWP(gamma=0.05, start=1))
    task.prior.table.copy_((3 * torch.rand(CLASSES, CLASSES)).softmax(-1))  # shares differ in the sums of weights
    return task


def make_several() -> Task:
    terms = {"gkl": GKL(wmse_weight=1000.0, gamma=2.0), "sample": GKL(gamma=0.5, weighting="sample"), "kl": KL()}
    task = make_gkl()
    task.loss = WeightedSum({name: {"loss": loss} for name, loss in terms.items()})
    return task


def make_cached() -> Task:
    settings = {"num_classes": CLASSES, "cache_teacher": True, "warmup_epochs": 0}
    return Distillation(make_plain_net(), make_plain_net(), KD(), **settings)


def one_view() -> Batch:
    batch = make_batch(SIZE)
    return batch._replace(images=batch.images.double(), indices=torch.arange(SIZE))


CASES: dict[str, tuple[Callable[[], Task], Callable[[], Batch]]] = {
    "GKL, class prior": (make_gkl, one_view),
    "GKL, two views": (make_gkl, two_views),
    "GKL, sample weights": (lambda: make_gkl(weighting="sample"), one_view),
    "several, two of them normalized": (make_several, one_view),
    "cached teacher": (make_cached, one_view),
}


def train(make: Callable[[], Task], make_whole: Callable[[], Batch]) -> dict[str, Tensor]:
    """All parameters after two epochs of one uneven batch, and the class prior."""
    torch.manual_seed(0)
    task, whole = make(), make_whole()
    first, count = (0, SIZE) if world() == 1 else ((0, 5), (5, 4))[rank()]
    part = share_of(whole, first, count)
    task.before_training([part], [part])
    optimizer = torch.optim.SGD([w for _, w in task.named_parameters()], lr=0.1)
    for epoch in (1, 2):
        optimizer.zero_grad()
        with task.step(part, Progress(epoch, 2)) as out:
            (out.loss * part.share).backward()
            sum_gradients(task.model.parameters())
            optimizer.step()
        task.end_epoch()
    return {**task.model.state_dict(), **({"prior": task.prior.table} if task.prior is not None else {})}


def train_all(file: Path) -> None:
    """Every case in this process; the first process writes what came out."""
    torch.set_num_threads(1)
    found = {name: train(*case) for name, case in CASES.items()}
    if rank() == 0:
        torch.save(found, file)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What two gloo processes made of every case."""
    file = tmp_path_factory.mktemp("two") / "found.pt"
    spawn_processes(train_all, (file,), processes=2, device="cpu")
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_steps_of_one(name: str, by_two: dict[str, dict[str, Tensor]]) -> None:
    alone, together = train(*CASES[name]), by_two[name]
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=0, atol=1e-12)
