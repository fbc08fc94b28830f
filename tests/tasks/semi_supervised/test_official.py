"""Three steps of each row of Table 16 equal the official code's, in float64 and with its dropped paths."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from rich.console import Console

from dkl.assembly import build_averaging, build_model, build_schedule, build_task
from dkl.config import compose_config
from dkl.console import Bar
from dkl.data import Batch, Unlabeled
from dkl.manifests import Request, plan
from dkl.training.averaging import Average
from dkl.training.loop import EpochSums, train_epoch
from dkl.training.optimizer import apply_schedule, make_optimizer
from tests.official.semi_supervised import Trainer, hard, ikl, mse, soft

ROWS: dict[str, tuple[Any, bool]] = {
    "fixmatch-hard": (hard, False),
    "fixmatch-soft": (soft, False),
    "fixmatch-ikl": (ikl(1.0, 0.1), False),
    "mean-teacher-mse": (mse, True),
    "mean-teacher-ikl": (ikl(0.02, 0.03), True),
}
SMALL = ["+model.embed_dim=12", "+model.depth=2", "+model.num_heads=2", "+model.patch_size=8"]
TOTAL, START = 204_800, 5_119
"""All updates, and those before the first: one step in the warm-up, then two after it."""


class Given:
    """Three batches of 8 labeled and 8 unlabeled images, and the loader of them."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(5)

        def images() -> torch.Tensor:
            return torch.rand(8, 3, 32, 32, generator=draw, dtype=torch.float64)

        def labels() -> torch.Tensor:
            return torch.randint(100, (8,), generator=draw)

        self.batches = [Batch(images(), labels(), unlabeled=Unlabeled(images(), images(), labels())) for _ in range(3)]
        self.labels = self.batches[0].labels

    def __len__(self) -> int:
        return 3

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        yield from self.batches


@pytest.mark.parametrize("row", ROWS)
def test_three_steps_equal_the_official_codes(row: str) -> None:
    loss, mean_teacher = ROWS[row]
    (job,) = plan("table-16", Request(seeds=(0,), row=row))
    cfg = compose_config("train", [*job.train, *SMALL])
    torch.manual_seed(3)
    model = build_model(cfg.model).double().train()
    with torch.no_grad():  # so that some predictions are certain, and others are not
        model.head.weight.normal_(std=3)
    official = Trainer(copy.deepcopy(model), 2, loss, mean_teacher)
    task, rule = build_task(cfg.task, model), build_averaging(cfg.averaging)
    average = Average(rule, model) if rule else None
    if average:
        task.use_average(average.model)
    assert bool(average) == mean_teacher
    optimizer, schedule = make_optimizer(cfg.optimizer, task.named_parameters(), model), build_schedule(cfg.schedule)

    def before(step: int) -> None:
        now = START + step + 1  # counted from 1
        assert schedule.per == "step"
        apply_schedule(schedule, optimizer, lr=cfg.optimizer.lr, epoch=now, epochs=TOTAL)

    def after(so_far: EpochSums) -> None:
        if average:
            average.update(model, START + so_far.step, TOTAL)

    given = Given()
    torch.manual_seed(9)
    metrics = train_epoch(
        task, given, optimizer, epoch=3, epochs=100, bar=Bar("", 3, 0, Console(file=io.StringIO())),
        before_step=before, after_step=after,
    )  # fmt: skip
    torch.manual_seed(9)
    losses = [
        official.train(batch.images, batch.labels, batch.unlabeled.weak, batch.unlabeled.strong, START + step)
        for step, batch in enumerate(given.batches)
    ]
    masks = torch.cat(official.masks)
    assert 0 < masks.mean() < 1
    assert metrics["mask_rate"] == pytest.approx(masks.mean().item(), abs=1e-12)
    assert metrics["loss"] == pytest.approx(sum(losses) / 3, rel=1e-11)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, official.model.get_parameter(name), rtol=0, atol=1e-12)
    if average:
        for name, weight in average.model.named_parameters():
            torch.testing.assert_close(weight, official.average.get_parameter(name), rtol=0, atol=1e-12)
