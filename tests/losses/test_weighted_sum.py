"""Several losses at once are the sum of what each gives alone, whatever each of them asks for."""

from typing import Any

import pytest
import torch

from dkl.losses import (
    DIST,
    DKD,
    GKL,
    IKL,
    KL,
    WKD,
    BatchNormalized,
    ClassComparing,
    PairLoss,
    RowLoss,
    WeightedSum,
    check_pair_loss,
    observed_terms,
)
from tests.losses.common import class_distances, logits, prior_weights

Terms = dict[str, tuple[float, PairLoss]]


def weighted(terms: Terms) -> WeightedSum:
    loss = WeightedSum({name: {"weight": weight, "loss": loss} for name, (weight, loss) in terms.items()})
    assert check_pair_loss(loss) is loss
    return loss


CASES: dict[str, Terms] = {
    "class": {"ikl": (0.5, IKL()), "gkl": (2.0, GKL()), "kl": (0.0, KL()), "own": (3.0, GKL(weighting="sample"))},
    "label": {"wkd": (0.1, WKD()), "dkd": (2.0, DKD()), "dist": (3.0, DIST())},
    "none": {"kl": (1.0, KL()), "ikl": (2.0, IKL(weighting="sample"))},
}


@pytest.mark.parametrize("weighting", CASES)
def test_a_sum_is_the_sum_of_its_terms(weighting: str) -> None:
    terms = CASES[weighting]
    loss, (m, n) = weighted(terms), logits(6, 5)
    everything: dict[str, Any] = {"weights": prior_weights(6, 5), "labels": torch.arange(6) % 5}
    key = {"class": "weights", "label": "labels"}.get(weighting)
    compared = {"class_distances": class_distances(5)}
    given = ({key: everything[key]} if key else {}) | (compared if isinstance(loss, ClassComparing) else {})
    wanted = {}
    for name, (weight, term) in terms.items():
        own = {} if term.weighting in ("none", "sample") else {key: everything[key]}
        wanted[f"loss/{name}"] = weight * term(m, n, **own, **(compared if isinstance(term, ClassComparing) else {}))
    with observed_terms() as observed:
        value = loss(m, n, **given)
    assert loss.weighting == weighting
    torch.testing.assert_close(value, sum(wanted.values()), rtol=1e-12, atol=0)
    torch.testing.assert_close({name: values[0] for name, values in observed.items()}, wanted, rtol=1e-12, atol=0)
    assert isinstance(loss, RowLoss) == (weighting != "label")
    if isinstance(loss, RowLoss):
        torch.testing.assert_close(loss.rows(m, n, **given).mean(), value, rtol=1e-12, atol=0)


def test_each_term_has_its_own_normalizer() -> None:
    loss, (m, n), weights = weighted(CASES["class"]), logits(6, 5), prior_weights(6, 5)
    assert isinstance(loss, BatchNormalized)
    whole = loss.normalizer(m, weights=weights)
    assert whole.shape == (2,)
    parts = [(m[at], n[at], weights[at]) for at in (slice(4), slice(4, 6))]
    shares = [len(a) / 6 * loss(a, b, weights=w, normalizer=whole * len(a) / 6) for a, b, w in parts]
    torch.testing.assert_close(sum(shares), loss(m, n, weights=weights), rtol=1e-12, atol=0)


def test_a_sum_asks_for_nothing_that_no_term_asks_for() -> None:
    loss = weighted(CASES["none"])
    assert not isinstance(loss, BatchNormalized | ClassComparing)


def test_terms_that_change_during_training_change_in_the_sum() -> None:
    later = weighted(CASES["label"]).at(0.9)
    assert later.terms == CASES["label"] | {"wkd": (0.1, WKD().at(0.9))}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "no terms: give at least one terms.NAME.loss"),
        ({"kl": {"loss": KL(), "weight": "2"}}, r"terms\.kl\.weight='2', must be a number from 0"),
        ({"kl": {"loss": KL(), "wait": 2}}, r"terms\.kl=.* must hold a loss, its weight and nothing else"),
        ({"kl": 1}, r"terms\.kl=1, must hold a loss"),
        ({"sum": {"loss": WeightedSum({"kl": {"loss": KL()}})}}, r"terms\.sum is a WeightedSum: give its terms"),
        ({"a": {"loss": IKL()}, "b": {"loss": DKD()}}, "have weighting=class and weighting=label: choose losses"),
        ({"a": {"loss": WKD()}, "b": {"loss": WKD(distances="classifier")}}, "the same distances"),
    ],
)
def test_a_sum_that_cannot_be_is_refused_in_one_line(terms: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        WeightedSum(terms)
    assert "\n" not in str(found.value)
