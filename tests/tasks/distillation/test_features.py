"""Feature losses are their papers' formulas, written here without torchdistill.

FitNet, AT and RKD as RepDistiller has them, ReviewKD as its authors' code has it, in float64.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.models.features import Features
from dkl.tasks.distillation.features import AT, RKD, FeatureLoss, FitNet, ReviewKD
from tests.tasks.distillation.common import features, needs_torchdistill

STUDENT = ((4, 8), (6, 4), (8, 2))
TEACHERS = {
    "as large": ((5, 8), (7, 4), (9, 2)),
    "larger": ((5, 16), (7, 8), (9, 4)),
    "smaller": ((5, 4), (7, 2), (9, 1)),
}


def pair_with(teacher: str) -> tuple[Features, Features]:
    """The student's features and those of a teacher with stages of other sizes."""
    return features(*STUDENT, pooled=8), features(*TEACHERS[teacher], pooled=9)


def value(loss: FeatureLoss, pair: tuple[Features, Features]) -> float:
    loss.connect(*pair)
    return loss.double()(*pair).item()


def normalized(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """BatchNorm by the batch's own statistics."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (var + bn.eps).sqrt() * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)


def huber(one: np.ndarray, other: np.ndarray) -> float:
    gap = np.abs(one - other)
    return float(np.where(gap < 1, gap**2 / 2, gap - 0.5).mean())


@needs_torchdistill
@pytest.mark.parametrize("teacher", TEACHERS)
def test_fitnet_is_the_mse_of_the_regressed_second_stage(teacher: str) -> None:
    pair = pair_with(teacher)
    loss = FitNet(weight=3.0)
    found = value(loss, pair)
    mine, theirs = pair[0].stages[1], pair[1].stages[1]
    convolution, bn = loss.regressor.conv, loss.regressor.bn
    weight, bias = convolution.weight, convolution.bias
    if theirs.shape[-1] == 4:
        expected = torch.einsum("bihw,oi->bohw", mine, weight[:, :, 0, 0]) + bias.view(1, -1, 1, 1)
    elif theirs.shape[-1] == 8:
        expected = F.conv_transpose2d(mine, weight, bias, stride=2, padding=1)
        assert weight.shape[-1] == 4
    else:
        expected = F.conv2d(mine, weight, bias, stride=2, padding=1)
        assert weight.shape[-1] == 3
    expected = normalized(expected, bn).clamp(min=0)
    assert found == pytest.approx(3 * (expected - theirs).square().mean().item(), rel=1e-12)


@needs_torchdistill
@pytest.mark.parametrize("teacher", TEACHERS)
def test_at_is_the_mse_of_normalized_attention(teacher: str) -> None:
    pair = pair_with(teacher)

    def attention(stage: Tensor, size: int) -> np.ndarray:
        array = stage.numpy()
        block = array.shape[-1] // size
        array = array.reshape(*array.shape[:2], size, block, size, block).mean((3, 5))
        flat = (array**2).mean(1).reshape(len(array), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    expected = 0.0
    for mine, theirs in zip(*(one.stages for one in pair), strict=True):
        size = min(mine.shape[-1], theirs.shape[-1])
        expected += ((attention(mine, size) - attention(theirs, size)) ** 2).mean()
    assert value(AT(weight=7.0), pair) == pytest.approx(7 * expected, rel=1e-10)


@needs_torchdistill
def test_rkd_compares_all_distances_and_angles() -> None:
    def relations(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = range(len(points))
        distances = np.array([[np.linalg.norm(points[i] - points[j]) for j in count] for i in count])
        unit = [[(points[j] - points[i]) / (distances[i, j] or 1) for j in count] for i in count]
        angles = np.array([[[unit[i][j] @ unit[i][k] for k in count] for j in count] for i in count])
        return distances / distances[distances > 0].mean(), angles

    pair = pair_with("as large")
    (d_s, a_s), (d_t, a_t) = (relations(one.pooled.numpy()) for one in pair)
    expected = 25 * huber(d_s, d_t) + 50 * huber(a_s, a_t)
    assert value(RKD(), pair) == pytest.approx(expected, rel=1e-8)
    assert value(RKD(distance_weight=2.0, angle_weight=0.0), pair) == pytest.approx(2 * huber(d_s, d_t), rel=1e-8)
    assert RKD()(*(Features((), one.pooled[:1]) for one in pair)) == 0  # a last batch of one image


def fused(fusion: nn.Module, x: Tensor, carried: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """The authors' ABF over the parameters of ``fusion``, its output of ``size`` and what it carries on."""
    convolutions = [module for module in fusion.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in fusion.modules() if isinstance(module, nn.BatchNorm2d)]
    first, third = convolutions[:2]
    x = normalized(torch.einsum("bihw,oi->bohw", x, first.weight[:, :, 0, 0]), norms[0])
    if carried is not None:
        attention = convolutions[2]
        both = torch.cat([x, larger(carried, x.shape[-1])], 1)
        weight = torch.einsum("bihw,oi->bohw", both, attention.weight[:, :, 0, 0]) + attention.bias.view(1, -1, 1, 1)
        gate = 1 / (1 + torch.exp(-weight))
        x = x * gate[:, :1] + larger(carried, x.shape[-1]) * gate[:, 1:]
    x = larger(x, size)
    return normalized(F.conv2d(x, third.weight, padding=1), norms[1]), x


def larger(x: Tensor, size: int) -> Tensor:
    """Every pixel repeated."""
    times = size // x.shape[-1]
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


def context(one: Tensor, other: Tensor) -> float:
    """The hierarchical context loss: MSE of maps and of their means over 4, 2 and 1 parts a side, halving weights."""
    gap, size = (one - other).detach().numpy(), one.shape[-1]
    terms, weights = [(gap**2).mean()], [1.0]
    for parts in (part for part in (4, 2, 1) if part < size):
        block = size // parts
        means = gap.reshape(*gap.shape[:2], parts, block, parts, block).mean((3, 5))
        terms.append((means**2).mean())
        weights.append(weights[-1] / 2)
    return float(np.dot(terms, weights) / sum(weights))


@needs_torchdistill
@pytest.mark.parametrize("teacher", ["as large", "larger"])
def test_reviewkd_is_the_context_loss_of_fused_stages(teacher: str) -> None:
    pair = pair_with(teacher)
    loss = ReviewKD(weight=5.0)
    found = value(loss, pair)
    maps = [[*reversed(one.stages)] for one in pair]
    ends = [one.pooled[..., None, None] for one in pair]
    expected, carried = 0.0, None
    for fusion, mine, theirs in zip(loss.fusions, [ends[0], *maps[0]], [ends[1], *maps[1]], strict=True):
        output, carried = fused(fusion, mine, carried, theirs.shape[-1])
        expected += context(output, theirs)
    assert found == pytest.approx(5 * expected, rel=1e-10)
    assert all(fusion.conv1[0].out_channels == 8 for fusion in loss.fusions)  # as wide as what the classes see
