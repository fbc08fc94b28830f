"""Distillation losses refuse wrong fields, shapes and labels; they are frozen and compile; what their YAMLs are."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dkl.losses import DIST, DKD, GKL, IKL, JSD, KD, PairLoss
from tests.configs.common import CONFIGS
from tests.losses.common import logits, value_and_gradients

LOSSES = [KD(), DKD(), DIST(), JSD()]
BY_NAME = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
LABELS = torch.tensor([0, 4, 2, 2])

NUMBERS = [(KD, "weight"), (JSD, "weight"), (DKD, "alpha"), (DKD, "beta"), (DIST, "beta"), (DIST, "gamma")]
TEMPERATURES = (
    [(kind, "logit_temperature") for kind in (KD, DKD, DIST, JSD)]
    + [(kind, "ce_temperature") for kind in (IKL, GKL)]
    + [(kind, "sample_temperature") for kind in (IKL, GKL)]
)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, True, "5", None])
@pytest.mark.parametrize(("kind", "field"), NUMBERS + TEMPERATURES)
def test_numbers_no_loss_can_use_raise(kind: Callable[..., object], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}: {field}="):
        kind(**{field: value})


@pytest.mark.parametrize(("kind", "field"), TEMPERATURES)
def test_temperatures_of_zero_raise(kind: Callable[..., object], field: str) -> None:
    for value in (0, 0.0):
        with pytest.raises(ValueError, match=rf"{field}=0.*above 0"):
            kind(**{field: value})


@BY_NAME
@pytest.mark.parametrize("second", [(4, 1), (1, 5), (5,), (4, 6), (2, 4, 5)])
def test_logits_of_unlike_shapes_raise(loss: PairLoss, second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of one shape"):
        loss(torch.randn(4, 5), torch.randn(second), LABELS)


def test_dkd_wants_the_labels() -> None:
    assert DKD().weighting == "label"
    assert {KD().weighting, DIST().weighting, JSD().weighting} == {"none"}
    with pytest.raises(ValueError, match="pass them third"):
        DKD()(*logits(4, 5))


@pytest.mark.parametrize(
    "labels", [LABELS.float(), LABELS.int(), LABELS[:3], LABELS[:, None], torch.eye(5)[LABELS], torch.tensor(1)]
)
def test_labels_of_another_kind_raise(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="labels must be int64"):
        DKD()(*logits(4, 5), labels)


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_beyond_the_classes_raises(label: int) -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        DKD()(*logits(4, 5), torch.tensor([0, 1, 2, label]))


def test_dkd_of_one_class_raises() -> None:
    with pytest.raises(ValueError, match="2 classes or more"):
        DKD()(*logits(4, 1), torch.zeros(4, dtype=torch.int64))


@BY_NAME
def test_losses_are_frozen_values(loss: KD | DKD | DIST | JSD) -> None:
    for field in dataclasses.fields(loss):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, 1.0)
    assert hash(loss) == hash(type(loss)())
    assert dataclasses.replace(loss, logit_temperature=7.0) != loss
    with pytest.raises(TypeError, match="positional"):
        type(loss)(1.0)


@BY_NAME
def test_nothing_is_written_to_the_arguments(loss: PairLoss) -> None:
    given = (*logits(4, 5), LABELS)
    before = [x.clone() for x in given]
    value_and_gradients(loss, *given)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


@BY_NAME
def test_losses_trace_into_one_graph(loss: PairLoss) -> None:
    t, s = logits(4, 5)
    traced = torch.compile(loss.__call__, backend="aot_eager", fullgraph=True)
    eager = value_and_gradients(loss, t, s, LABELS)
    for got, expected in zip(value_and_gradients(traced, t, s, LABELS), eager, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("kd", KD(weight=0.9, logit_temperature=4)),
        ("dkd", DKD(alpha=1, beta=8, logit_temperature=4)),
        ("dist", DIST(beta=1, gamma=1, logit_temperature=1)),
        ("jsd", JSD(weight=1, logit_temperature=1)),
        ("ikl_kd", IKL(wmse_weight=8, ce_weight=1, ce_temperature=4, sample_temperature=100, weighting="sample")),
        ("gkl_kd", GKL(wmse_weight=16, ce_weight=1, gamma=0.05, ce_temperature=4, sample_temperature=4)),
    ],
)
def test_the_choices_are_the_official_cifar_100_settings(choice: str, expected: PairLoss) -> None:
    assert instantiate(OmegaConf.load(CONFIGS / "loss" / f"{choice}.yaml")) == expected
