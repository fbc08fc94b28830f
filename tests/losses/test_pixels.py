"""Losses of pixels equal a loop over the pixels with the losses of vectors, in value and gradient, in any layout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dkl.losses import (
    DKD,
    GKL,
    IKL,
    KL,
    ClassPrior,
    GKLLoss,
    IKLLoss,
    PairLoss,
    RowLoss,
    gap_mse,
    soft_cross_entropy,
    wmse,
)
from dkl.tasks.segmentation_distillation import pixel_loss

C, IGNORE = 5, 255
SAMPLE = IKL(wmse_weight=3.0, ce_weight=2.0, ce_temperature=2.0, sample_temperature=3.0, weighting="sample")
LOSSES: list[PairLoss] = [SAMPLE, IKL(wmse_weight=3.0), KL(weight=2.0), IKL(ce_weight=0.0, weighting="sample"), DKD()]


def _inputs(layout: torch.memory_format) -> tuple[Tensor, Tensor, Tensor, ClassPrior]:
    teacher, student = (
        torch.randn(2, C, 4, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_() for _ in range(2)
    )
    masks = torch.randint(C, (2, 4, 3))
    masks[0, 1], masks[1, 0, 0] = IGNORE, IGNORE
    prior = ClassPrior(C, dtype=torch.float64)
    prior.table.copy_(torch.rand(C, C).softmax(-1))
    return teacher, student, masks, prior


def _loop(loss: PairLoss, teacher: Tensor, student: Tensor, masks: Tensor, prior: ClassPrior) -> Tensor:
    """The mean over the pixels that count of the loss of one vector."""
    values = []
    for b, i, j in (masks != IGNORE).nonzero().tolist():
        label = masks[b, i, j].view(1)
        wanted: dict[str, Any] = {"class": {"weights": prior[label]}, "label": {"labels": label}}.get(
            loss.weighting, {}
        )
        values.append(loss(teacher[None, b, :, i, j], student[None, b, :, i, j], **wanted))
    return torch.stack(values).mean()


@pytest.mark.parametrize("block", [2**18, 4], ids=["whole", "blocks"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_pixel_loss_is_the_loop_over_vectors(
    loss: PairLoss, layout: torch.memory_format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wmse.BLOCK, "cpu", block)
    teacher, student, masks, prior = _inputs(layout)
    ours = pixel_loss(loss, teacher, student, masks, ignore_index=IGNORE, prior=prior)
    theirs = _loop(loss, teacher, student, masks, prior)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(value, (teacher, student), allow_unused=True) for value in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        if other is None:  # DKD gives the teacher none
            assert one is None
        else:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gkl_normalizes_over_the_pixels_that_count() -> None:
    teacher, student, masks, prior = _inputs(torch.contiguous_format)
    loss, counted = GKL(), masks != IGNORE
    ours = pixel_loss(loss, teacher, student, masks, ignore_index=IGNORE, prior=prior)
    rows = [logits.permute(0, 2, 3, 1)[counted] for logits in (teacher, student)]
    torch.testing.assert_close(ours, loss(rows[0], rows[1], weights=prior[masks[counted]]))


@pytest.mark.parametrize("loss", [SAMPLE, GKL(), DKD()], ids=repr)
def test_without_pixels_that_count_the_loss_is_zero_and_has_a_gradient(loss: PairLoss) -> None:
    teacher, student, masks, prior = _inputs(torch.contiguous_format)
    masks.fill_(IGNORE)
    value = pixel_loss(loss, teacher, student, masks, ignore_index=IGNORE, prior=prior)
    value.backward()
    assert value.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
def test_logits_of_pixels_are_not_copied(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original: Callable[..., Any] = wmse._Settings.compute

    def spy(self: Any, m: Tensor, *others: Any) -> Any:
        seen.append(m)
        return original(self, m, *others)

    monkeypatch.setattr(wmse._Settings, "compute", spy)
    teacher, student, *_ = _inputs(layout)
    assert isinstance(SAMPLE, RowLoss)
    SAMPLE.rows(teacher, student)
    assert seen[0].data_ptr() == teacher.data_ptr()


def test_the_prior_has_the_mean_prediction_by_the_pixels_label() -> None:
    teacher, _, masks, _ = _inputs(torch.contiguous_format)
    prior = ClassPrior(C, dtype=torch.float64)
    prior.observe(teacher, masks, 2.0, IGNORE)
    prior.end_epoch()
    for label in range(C):
        members = [teacher[b, :, i, j] for b, i, j in (masks == label).nonzero().tolist()]
        if members:
            expected = torch.stack([(one / 2).softmax(0) for one in members]).mean(0)
            torch.testing.assert_close(prior.table[label], expected.detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("kind", [IKLLoss, GKLLoss])
def test_drop_ins_on_pixels_equal_those_on_the_pixels_that_count(
    kind: type[IKLLoss | GKLLoss], layout: torch.memory_format
) -> None:
    teacher, student, masks, prior = _inputs(layout)
    counted = masks != IGNORE
    flat = [logits.movedim(1, -1)[counted] for logits in (teacher, student)]
    values = {}
    for reduction in ("mean", "sum", "none"):
        dense, rows = kind(C, ignore_index=IGNORE, reduction=reduction), kind(C, reduction=reduction)
        for criterion in (dense, rows):
            criterion.prior.load_state_dict(prior.state_dict())
            criterion.double()
        values[reduction] = ours, theirs = dense(teacher, student, masks), rows(*flat, masks[counted])
        torch.testing.assert_close(ours[counted] if reduction == "none" else ours, theirs)
        torch.testing.assert_close(dense.prior.sums, rows.prior.sums)
        gradients = [
            torch.autograd.grad(value.sum(), (teacher, student), retain_graph=True) for value in (ours, theirs)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)
    mean, total, each = (values[reduction][0] for reduction in ("mean", "sum", "none"))
    assert each.shape == masks.shape
    assert not each[~counted].any()
    torch.testing.assert_close(each.sum(), total)
    torch.testing.assert_close(each[counted].mean(), mean)


@pytest.mark.parametrize("kind", [IKLLoss, GKLLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_drop_in_without_samples_is_zero_with_a_gradient_of_zero(
    kind: type[IKLLoss | GKLLoss], reduction: Any
) -> None:
    m, n = (torch.randn(3, C, requires_grad=True) for _ in range(2))
    for rows, ignored in ((0, None), (3, IGNORE)):
        criterion = kind(C, reduction=reduction, ignore_index=ignored)
        value = criterion(m[:rows], n[:rows], torch.full((rows,), IGNORE))
        assert value.item() == 0
        assert all(not gradient.any() for gradient in torch.autograd.grad(value, (m, n)))
        assert not criterion.prior.sums.any()


def test_the_functions_take_pixels_and_sums() -> None:
    m, n, *_ = _inputs(torch.contiguous_format)
    flat_m, flat_n = (x.movedim(1, -1).flatten(0, -2) for x in (m, n))
    for reduction in ("mean", "sum", "none"):
        for ours, theirs in (
            (gap_mse(m, n, m.softmax(1), reduction), gap_mse(flat_m, flat_n, flat_m.softmax(1), reduction)),
            (soft_cross_entropy(m, n, reduction), soft_cross_entropy(flat_m, flat_n, reduction)),
        ):
            torch.testing.assert_close(ours.flatten() if reduction == "none" else ours, theirs)
    torch.testing.assert_close(soft_cross_entropy(m, n, "sum"), soft_cross_entropy(m, n, "none").sum())
    torch.testing.assert_close(gap_mse(m, n, m, "sum"), gap_mse(m, n, m, "none").sum())
