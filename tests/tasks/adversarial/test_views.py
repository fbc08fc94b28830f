"""Two views of an image in one step, and shares of a batch whose noise is that of the whole."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.losses import GKL, IKL, PairLoss
from dkl.tasks import AWP, Progress
from tests.official.adversarial import ProxyAWP
from tests.official.oracles import pairwise_gkl, pairwise_ikl
from tests.tasks.common import CLASSES, EPS, Spy, make_attack, make_batch, make_net, make_task, share_of, two_views

FIRST = Progress(1, 4)
SIZE = 9


def oracle(loss: PairLoss, natural: Tensor, adversarial: Tensor, weights: Tensor) -> Tensor:
    """``loss`` by its pairwise form."""
    if isinstance(loss, GKL):
        return pairwise_gkl(natural, adversarial, weights, loss.wmse_weight, loss.ce_weight, loss.gamma)
    return pairwise_ikl(natural, adversarial, weights, loss.wmse_weight, loss.ce_weight)


LOSSES = pytest.mark.parametrize("loss", [IKL(wmse_weight=3.0, ce_weight=2.0), GKL(wmse_weight=3.0, gamma=0.3)])


@LOSSES
def test_the_pair_loss_of_the_second_view_is_weighted_and_the_cross_entropy_is_not(loss: PairLoss) -> None:
    for aug_weight in [0.0, 0.3, 1.0]:
        model, batch = make_net().double().train(), two_views(SIZE)
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
    model, batch = make_net().double().train(), two_views(SIZE)
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
    model, batch = make_net().double().train(), two_views(SIZE)
    spy, task = Spy(model), make_task(model, prior_temperature=2.0)
    with task.step(batch, FIRST):
        pass
    natural = spy.calls[-1].logits[:SIZE]
    task.end_epoch()
    for label in range(CLASSES):
        of_class = (natural[batch.labels[:SIZE] == label] / 2).softmax(-1)
        torch.testing.assert_close(task.prior.table[label], of_class.mean(0))


ATTACKS = {
    "gaussian": make_attack(steps=0),
    "uniform": make_attack(steps=0, sigma=None),
    "uniform, l2": make_attack(steps=0, sigma=None, norm="l2"),
}


def test_processes_start_from_their_part_of_the_whole_batchs_noise() -> None:
    for cuts in [[0, 1, 4, 9], [0, 9]]:
        for views in [1, 2]:
            for attack in ATTACKS.values():
                whole = two_views(SIZE) if views == 2 else make_batch(SIZE)
                model = make_net().to(whole.images.dtype)
                alone = make_task(model, attack=attack, seed=5)
                processes = [make_task(model, attack=attack, seed=5) for _ in cuts[1:]]
                earlier = None
                for step in range(
                    2
                ):  # the second batch shows that every process has drawn the whole batch's noise before
                    progress = replace(FIRST, step=step)
                    starts = alone.perturb(whole, progress)
                    for task, first, end in zip(processes, cuts, cuts[1:], strict=False):
                        got = task.perturb(share_of(whole, first, end - first), progress)
                        expected = torch.cat([view[first:end] for view in starts.chunk(views)])
                        assert torch.equal(got, expected)
                    assert starts.unique(dim=0).shape == starts.shape  # no two images share their noise
                    assert earlier is None or not torch.equal(starts, earlier)
                    earlier = starts
                assert 0 < (starts - whole.images).abs().max() <= (0.01 if attack.sigma else EPS * (1 + 1e-5))


@pytest.mark.parametrize("natural_first", [False, True])
def test_separate_forwards_normalize_by_each_view_and_track_the_first(natural_first: bool) -> None:
    model, batch = make_net().double().train(), two_views(SIZE)
    batch.images[SIZE:] *= 0.5
    settings = {"natural_first": natural_first, "prior_temperature": 2.0}
    task = make_task(model, attack=make_attack(objective=IKL()), per_view_forward=True, **settings)
    mixed = make_task(copy.deepcopy(model), attack=make_attack(objective=IKL()), **settings)
    twin = copy.deepcopy(model)
    task.prior.table.copy_(torch.rand(CLASSES, CLASSES).softmax(-1))
    mixed.prior.table.copy_(task.prior.table)
    rows = task.prior.table[batch.labels[:SIZE]].clone()
    with task.step(batch, FIRST) as out:
        gradients = torch.autograd.grad(out.loss, list(model.parameters()))
    with mixed.step(batch, FIRST) as other:
        assert torch.equal(out.adversarial_images, other.adversarial_images)  # the attack is in eval mode
        assert abs(out.loss - other.loss) > 1e-4

    tracked = [twin[0](images[:SIZE]) for images in (out.adversarial_images, batch.images)]
    tracked = tracked[::-1] if natural_first else tracked
    by_view = [[twin(view) for view in images.chunk(2)] for images in (batch.images, out.adversarial_images)]
    natural, adversarial = by_view  # forward by forward: statistics are each view's
    pairs = [pairwise_ikl(n, a, rows, 3.0, 2.0) for n, a in zip(natural, adversarial, strict=True)]
    expected = F.cross_entropy(torch.cat(natural), batch.labels) + pairs[0] + 0.3 * pairs[1]
    torch.testing.assert_close(out.loss, expected, rtol=1e-12, atol=0)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, list(twin.parameters())), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    mean, variance = torch.zeros(5).double(), torch.ones(5).double()
    for maps in tracked:
        maps = maps.detach().transpose(0, 1).flatten(1)
        mean, variance = 0.9 * mean + 0.1 * maps.mean(1), 0.9 * variance + 0.1 * maps.var(1)
    assert model[1].num_batches_tracked == 2
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)


def test_weight_perturbation_forwards_the_views_separately_too() -> None:
    model, batch = make_net().double().train(), two_views(SIZE)
    awp = AWP(gamma=0.1, start=1)
    task = make_task(model, attack=make_attack(steps=0), awp=awp, per_view_forward=True)
    rows, twin = task.prior.table[batch.labels].clone(), copy.deepcopy(model)
    proxy = ProxyAWP(twin, 0.1)
    with task.step(batch, FIRST) as out:

        def joint(net: nn.Module) -> Tensor:
            both = (batch.images, out.adversarial_images)
            natural, adversarial = (torch.cat([net(view) for view in images.chunk(2)]) for images in both)
            return F.cross_entropy(natural, batch.labels) + pairwise_ikl(natural, adversarial, rows, 3.0, 2.0)

        proxy.add(proxy.difference(joint), 1)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight, twin.get_parameter(name), rtol=0, atol=1e-12)
    assert model[1].num_batches_tracked == 2


def test_separate_forwards_refuse_an_attack_that_mixes_the_views() -> None:
    with pytest.raises(UserError, match=r"task\.per_view_forward=true .* set attack\.batch_norm=running"):
        make_task(make_net(), attack=make_attack(batch_norm="batch"), per_view_forward=True)
