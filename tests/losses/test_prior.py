"""ClassPrior holds the class means of the last epoch, computed here by a numpy loop; the drop-ins keep one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dkl.losses import ClassPrior, GKLLoss, IKLLoss
from dkl.runtime.distributed import rank, spawn_processes
from tests.official.oracles import pairwise_gkl, pairwise_ikl

CLASSES = 5
Batch = tuple[Tensor, Tensor]


def make_epoch(batches: int = 4, absent: int | None = None) -> list[Batch]:
    """Batches of (probabilities, target), none of them labeled ``absent``."""
    labels = torch.tensor([label for label in range(CLASSES) if label != absent])
    return [
        ((2 * torch.randn(16, CLASSES)).softmax(-1), labels[torch.randint(len(labels), (16,))]) for _ in range(batches)
    ]


def run_epoch(prior: ClassPrior, epoch: list[Batch]) -> None:
    for probabilities, target in epoch:
        prior.accumulate(probabilities, target)
    prior.end_epoch()


def loop_means(epoch: list[Batch], before: NDArray[np.float64], momentum: float = 1.0) -> NDArray[np.float64]:
    """Class means sample by sample; classes without samples keep their row of ``before``."""
    table = before.copy()
    for label in range(CLASSES):
        rows = [p.double().numpy() for ps, ts in epoch for p, t in zip(ps, ts, strict=True) if int(t) == label]
        if rows:
            table[label] = momentum * np.mean(rows, axis=0) + (1 - momentum) * before[label]
    return table


UNIFORM = np.full((CLASSES, CLASSES), 1 / CLASSES)


def assert_table(prior: ClassPrior, expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(prior.table.numpy(), expected, rtol=2e-6, atol=1e-7)


def test_uniform_until_the_first_epoch_ends() -> None:
    prior = ClassPrior(CLASSES)
    target = torch.tensor([3, 0, 3])
    for probabilities, labels in make_epoch():
        assert torch.equal(prior[target], torch.full((3, CLASSES), 1 / CLASSES))
        prior.accumulate(probabilities, labels)
    prior.end_epoch()
    assert not torch.allclose(prior[target], torch.full((3, CLASSES), 1 / CLASSES), atol=0.01)


def test_each_epoch_uses_the_means_of_the_one_before() -> None:
    prior = ClassPrior(CLASSES)
    for _ in range(3):
        epoch = make_epoch()
        run_epoch(prior, epoch)
        assert_table(prior, loop_means(epoch, UNIFORM))
        torch.testing.assert_close(prior.table.sum(-1), torch.ones(CLASSES))


def test_rows_are_picked_by_label() -> None:
    prior = ClassPrior(CLASSES)
    run_epoch(prior, make_epoch())
    target = torch.tensor([4, 1, 1, 0])
    assert prior[target].shape == (4, CLASSES)
    for row, label in zip(prior[target], target, strict=True):
        assert torch.equal(row, prior.table[label])
    assert torch.equal(prior[4], prior.table[4])
    assert torch.equal(prior[target.int()], prior[target.tolist()])


def test_a_class_without_samples_keeps_its_row() -> None:
    prior = ClassPrior(CLASSES)
    first, second = make_epoch(), make_epoch(absent=2)
    run_epoch(prior, first)
    kept = prior.table[2].clone()
    run_epoch(prior, second)
    assert torch.equal(prior.table[2], kept)
    assert_table(prior, loop_means(second, loop_means(first, UNIFORM)))


def test_an_epoch_without_samples_changes_nothing() -> None:
    prior = ClassPrior(CLASSES)
    run_epoch(prior, make_epoch())
    before = prior.table.clone()
    prior.end_epoch()
    assert torch.equal(prior.table, before)


def test_momentum_blends_new_means_with_old() -> None:
    for momentum in (0.1, 0.9, 1.0):
        prior = ClassPrior(CLASSES, momentum)
        expected = UNIFORM
        for absent in (None, 1, None):
            epoch = make_epoch(absent=absent)
            run_epoch(prior, epoch)
            expected = loop_means(epoch, expected, momentum)
            assert_table(prior, expected)


def test_half_predictions_are_summed_in_float32() -> None:
    prior = ClassPrior(CLASSES)
    epoch = [(probabilities.bfloat16(), target) for probabilities, target in make_epoch(batches=40)]
    for probabilities, target in epoch:
        prior.accumulate(probabilities, target)
    expected = np.zeros((CLASSES, CLASSES))
    for probabilities, target in epoch:
        np.add.at(expected, target.numpy(), probabilities.double().numpy())
    np.testing.assert_allclose(prior.sums.numpy(), expected, rtol=1e-5)


def test_observing_softens_logits_in_the_tables_dtype_and_keeps_no_graph() -> None:
    observed, accumulated = ClassPrior(CLASSES, dtype=torch.float64), ClassPrior(CLASSES, dtype=torch.float64)
    logits, target = torch.randn(6, CLASSES, requires_grad=True), torch.arange(6) % CLASSES
    observed.observe(logits, target, 4.0)
    accumulated.accumulate((logits.double() / 4).softmax(-1), target)
    assert torch.equal(observed.sums, accumulated.sums)
    assert not observed.sums.requires_grad
    assert observed.sums.sum().item() == pytest.approx(6)


def test_saved_in_mid_epoch_it_continues_as_if_never_stopped() -> None:
    whole, half = ClassPrior(CLASSES, 0.7), ClassPrior(CLASSES, 0.7)
    first, second = make_epoch(), make_epoch()
    run_epoch(whole, first)
    run_epoch(half, first)
    for prior in (whole, half):
        for probabilities, target in second[:2]:
            prior.accumulate(probabilities, target)
    resumed = ClassPrior(CLASSES, 0.7)
    resumed.load_state_dict(half.state_dict())
    assert torch.equal(resumed.table, whole.table)
    run_epoch(whole, second[2:])
    run_epoch(resumed, second[2:])
    assert torch.equal(resumed.table, whole.table)
    assert_table(whole, loop_means(second, loop_means(first, UNIFORM, 0.7), 0.7))


def test_bad_sizes_raise() -> None:
    for classes, momentum in [(0, 1.0), (5, 0.0), (5, 1.5), (5, -0.1)]:
        with pytest.raises(ValueError, match="num_classes" if classes < 1 else "momentum"):
            ClassPrior(classes, momentum)


# --- the drop-in modules --------------------------------------------------------------------------------------------

IKL_ORACLE = partial(pairwise_ikl, wmse_weight=12.0, ce_weight=4.0)
GKL_ORACLE = partial(pairwise_gkl, wmse_weight=12.0, ce_weight=4.0, gamma=0.3)
DROP_INS = pytest.mark.parametrize(
    ("kind", "oracle", "extra"), [(IKLLoss, IKL_ORACLE, {}), (GKLLoss, GKL_ORACLE, {"gamma": 0.3})]
)


def logit_batches(batches: int = 3) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [
        (2 * torch.randn(16, CLASSES), 2 * torch.randn(16, CLASSES), torch.randint(CLASSES, (16,)))
        for _ in range(batches)
    ]


@DROP_INS
def test_drop_in_over_epochs(kind: type[IKLLoss | GKLLoss], oracle: partial[Tensor], extra: dict[str, float]) -> None:
    loss = kind(CLASSES, wmse_weight=12.0, ce_weight=4.0, prior_temperature=4.0, prior_momentum=0.8, **extra)
    table = UNIFORM
    for _ in range(3):
        epoch = []
        for m, n, target in logit_batches():
            m, n = m.requires_grad_(), n.requires_grad_()
            value = loss(m, n, target)
            expected = oracle(m, n, torch.from_numpy(table[target.numpy()]).float())
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
            for got, wanted in zip(*(torch.autograd.grad(x, (m, n)) for x in (value, expected)), strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
            epoch.append(((m.detach() / 4.0).softmax(-1), target))
        loss.end_epoch()
        table = loop_means(epoch, table, momentum=0.8)
        assert_table(loss.prior, table)


@DROP_INS
def test_eval_mode_uses_the_prior_and_leaves_it(
    kind: type[IKLLoss | GKLLoss], oracle: partial[Tensor], extra: dict[str, float]
) -> None:
    loss = kind(CLASSES, wmse_weight=12.0, ce_weight=4.0, **extra)
    for batch in logit_batches():
        loss(*batch)
    loss.end_epoch()
    table = loss.prior.table.clone()
    loss.eval()
    for m, n, target in logit_batches():
        torch.testing.assert_close(loss(m, n, target), oracle(m, n, table[target]), rtol=1e-5, atol=1e-6)
    assert not loss.prior.sums.any()
    loss.end_epoch()
    assert torch.equal(loss.prior.table, table)


@pytest.mark.parametrize("kind", [IKLLoss, GKLLoss])
def test_a_drop_in_saves_its_prior_and_checks_its_temperature(kind: type[IKLLoss | GKLLoss]) -> None:
    loss, fresh = kind(CLASSES), kind(CLASSES)
    for m, n, target in logit_batches():
        loss(m.bfloat16(), n.bfloat16(), target)  # half logits enter too
    loss.end_epoch()
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh.prior.table, loss.prior.table)
    assert not torch.allclose(loss.prior.table, torch.full((CLASSES, CLASSES), 1 / CLASSES), atol=0.01)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature"):
            kind(CLASSES, prior_temperature=temperature)


@pytest.mark.parametrize("cast", [lambda module: module.to(torch.bfloat16), lambda module: module.half()])
def test_a_cast_to_fewer_bits_leaves_the_prior_in_float32(cast: Callable[[nn.Module], nn.Module]) -> None:
    plain, lowered = IKLLoss(CLASSES), IKLLoss(CLASSES)
    cast(nn.Sequential(lowered))
    for m, n, target in logit_batches(40):
        plain(m, n, target)
        lowered(m, n, target)
    assert torch.equal(lowered.prior.sums, plain.prior.sums)
    assert lowered.prior.double().table.dtype == torch.float64
    assert lowered.prior.to("meta").sums.is_meta


def test_the_prior_is_saved_by_its_old_names_but_is_no_buffer() -> None:
    criterion = IKLLoss(CLASSES)
    assert list(criterion.state_dict()) == ["prior.table", "prior.sums"]
    assert not list(criterion.buffers())
    before = {name: torch.rand(CLASSES, CLASSES) for name in criterion.state_dict()}
    for assign in (False, True):
        criterion.load_state_dict(before, assign=assign)
        assert torch.equal(criterion.prior.table, before["prior.table"])
        assert torch.equal(criterion.prior.sums, before["prior.sums"])
    with pytest.raises(RuntimeError, match=r"prior\.table"):
        criterion.load_state_dict({"prior.sums": before["prior.sums"]})


class Trained(nn.Module):
    """A network whose forward returns its loss, as users of DistributedDataParallel write it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(CLASSES, CLASSES)
        self.criterion = IKLLoss(CLASSES)

    def forward(self, m: Tensor, n: Tensor, target: Tensor) -> Tensor:
        return self.criterion(self.layer(m), n, target)


def train_two_epochs(inside: bool, folder: str, share: slice) -> None:
    """Two epochs on this process's ``share`` of every batch; the table goes to a file."""
    torch.manual_seed(0)
    network = Trained()
    criterion, batches = network.criterion, logit_batches()
    wrapped = network if share == slice(None) else DistributedDataParallel(network if inside else network.layer)
    for _ in range(2):
        for m, n, target in ((x[share] for x in batch) for batch in batches):
            loss = wrapped(m, n, target) if inside else criterion(wrapped(m), n, target)
            loss.backward()
        criterion.end_epoch()
    torch.save(criterion.prior.table, f"{folder}/{inside}-{rank()}")


def train_shares(folder: str) -> None:
    for inside in (True, False):
        train_two_epochs(inside, folder, slice(0, 6) if rank() == 0 else slice(6, 16))


@pytest.mark.slow
def test_the_prior_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    train_two_epochs(True, str(tmp_path), slice(None))
    expected = torch.load(tmp_path / "True-0")
    spawn_processes(train_shares, (str(tmp_path),), processes=2, device="cpu")
    for name in ("True-0", "True-1", "False-0", "False-1"):
        torch.testing.assert_close(torch.load(tmp_path / name), expected)
