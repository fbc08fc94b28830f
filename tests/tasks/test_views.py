"""Two views of an image in one step, and shares of a batch whose noise is that of the whole."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import GKL, IKL, PairLoss
from dkl.tasks import AWP, Progress
from tests.official.adversarial import ProxyAWP
from tests.official.oracles import pairwise_gkl, pairwise_ikl
from tests.tasks.common import CLASSES, EPS, Spy, make_attack, make_batch, make_net, make_task

FIRST = Progress(1, 4)
SIZE = 9


def two_views() -> Batch:
    """Nine images and, after them, another view of each, in float64."""
    one, other = make_batch(SIZE), make_batch(SIZE)
    return Batch(torch.cat([one.images, other.images]).double(), one.labels.repeat(2), 2)


def oracle(loss: PairLoss, natural: Tensor, adversarial: Tensor, weights: Tensor) -> Tensor:
    """``loss`` by its pairwise form."""
    if isinstance(loss, GKL):
        return pairwise_gkl(natural, adversarial, weights, loss.wmse_weight, loss.ce_weight, loss.gamma)
    return pairwise_ikl(natural, adversarial, weights, loss.wmse_weight, loss.ce_weight)


LOSSES = pytest.mark.parametrize("loss", [IKL(wmse_weight=3.0, ce_weight=2.0), GKL(wmse_weight=3.0, gamma=0.3)])


@LOSSES
@pytest.mark.parametrize("aug_weight", [0.0, 0.3, 1.0])
def test_the_pair_loss_of_the_second_view_is_weighted_and_the_cross_entropy_is_not(
    loss: PairLoss, aug_weight: float
) -> None:
    model, batch = make_net().double().train(), two_views()
    spy, task = Spy(model), make_task(model, loss, aug_weight=aug_weight)
    task.prior.table.copy_(torch.rand(CLASSES, CLASSES).softmax(-1))
    rows = task.prior.table[batch.labels[:SIZE]].clone()
    with task.step(batch, FIRST) as out:
        pass
    adversarial, natural = (call.logits for call in spy.calls[-2:])
    views = [oracle(loss, natural[part], adversarial[part], rows) for part in (slice(SIZE), slice(SIZE, None))]
    expected = F.cross_entropy(natural, batch.labels) + views[0] + aug_weight * views[1]
    torch.testing.assert_close(out.loss, expected, rtol=1e-12, atol=0)
    assert len(out.adversarial_images) == 2 * SIZE


@LOSSES
def test_weight_perturbation_weights_the_views_alike(loss: PairLoss) -> None:
    model, batch = make_net().double().train(), two_views()
    task = make_task(model, loss, attack=make_attack(steps=0), aug_weight=0.3, awp=AWP(gamma=0.1, start=1))
    task.prior.table.copy_(torch.rand(CLASSES, CLASSES).softmax(-1))
    rows = task.prior.table[batch.labels].clone()
    twin = copy.deepcopy(model)
    proxy = ProxyAWP(twin, 0.1)
    with task.step(batch, FIRST) as out:

        def joint(net: nn.Module) -> Tensor:
            natural, adversarial = net(batch.images), net(out.adversarial_images)
            return F.cross_entropy(natural, batch.labels) + oracle(loss, natural, adversarial, rows)

        proxy.add(proxy.difference(joint), 1)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight, twin.get_parameter(name), rtol=0, atol=1e-12)


def test_only_the_first_view_enters_the_prior() -> None:
    model, batch = make_net().double().train(), two_views()
    spy, task = Spy(model), make_task(model, prior_temperature=2.0)
    with task.step(batch, FIRST):
        pass
    natural = spy.calls[-1].logits[:SIZE]
    task.end_epoch()
    for label in range(CLASSES):
        of_class = (natural[batch.labels[:SIZE] == label] / 2).softmax(-1)
        torch.testing.assert_close(task.prior.table[label], of_class.mean(0))


def test_a_negative_weight_of_the_second_view_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.aug_weight=-1 must be .* at least 0"):
        make_task(make_net(), aug_weight=-1)


def share(batch: Batch, first: int, count: int) -> Batch:
    """Images ``first`` to ``first + count`` of each view, and where they stand in the whole."""
    total = len(batch.labels) // batch.views
    places = torch.cat([view * total + torch.arange(first, first + count) for view in range(batch.views)])
    return Batch(batch.images[places], batch.labels[places], batch.views, first, total)


ATTACKS = {
    "gaussian": make_attack(steps=0),
    "uniform": make_attack(steps=0, sigma=None),
    "uniform, l2": make_attack(steps=0, sigma=None, norm="l2"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("cuts", [[0, 5, 9], [0, 1, 4, 9], [0, 9]], ids=str)
def test_processes_start_from_their_part_of_the_whole_batchs_noise(
    attack: TrainingAttack, views: int, cuts: list[int]
) -> None:
    whole = two_views() if views == 2 else make_batch(SIZE)
    model = make_net().to(whole.images.dtype)
    alone = make_task(model, attack=attack, seed=5)
    processes = [make_task(model, attack=attack, seed=5) for _ in cuts[1:]]
    earlier = None
    for step in range(2):  # the second batch shows that every process has drawn the whole batch's noise before
        progress = replace(FIRST, step=step)
        starts = alone.perturb(whole, progress)
        for task, first, end in zip(processes, cuts, cuts[1:], strict=False):
            got = task.perturb(share(whole, first, end - first), progress)
            expected = torch.cat([view[first:end] for view in starts.chunk(views)])
            assert torch.equal(got, expected)
        assert starts.unique(dim=0).shape == starts.shape  # no two images share their noise
        assert earlier is None or not torch.equal(starts, earlier)
        earlier = starts
    assert 0 < (starts - whole.images).abs().max() <= (0.01 if attack.sigma else EPS * (1 + 1e-5))


def test_the_share_of_a_batch_is_of_one_view() -> None:
    whole = two_views()
    assert whole.share == 1
    parts = [share(whole, 0, 6), share(whole, 6, 3)]
    assert [part.share for part in parts] == pytest.approx([6 / 9, 3 / 9])
