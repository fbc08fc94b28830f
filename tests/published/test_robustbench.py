"""RobustBench's list and the networks of its models agree with each other, and names are found or refused."""

import re

import pytest
import torch

from dkl.errors import UserError
from dkl.models import create_model
from dkl.published import find_network, published_entries, published_networks

NETWORKS = published_networks()


def test_every_network_belongs_to_an_entry_and_has_its_architecture() -> None:
    entries = {(each.dataset, each.norm, each.id): each for each in published_entries()}
    assert len(entries) == len(published_entries())
    for network in NETWORKS:
        stated = entries[network.dataset, network.norm, network.id].architecture
        wide = re.fullmatch(r"wrn(\d+)_(\d+)(_swish)?", network.network)
        assert stated == ("WideResNet-{}-{}".format(*wide.groups()[:2]) if wide else "PreActResNet-18")
        # All networks of DeepMind's family have SiLU and normalize their input.
        assert not network.network.endswith("_swish") or network.mean is not None


def test_entries_are_plausible() -> None:
    for entry in published_entries():
        assert 0 <= entry.robust <= entry.clean <= 1
        assert entry.link.startswith("http") or not entry.link


@pytest.mark.parametrize("name", sorted({network.network for network in NETWORKS}))
def test_every_network_can_be_built(name: str) -> None:
    with torch.device("meta"):
        create_model(name, 10)


def test_the_families_that_the_field_compares_with_resolve_by_name() -> None:
    for name, dataset, network in (
        ("Cui2023Decoupled_WRN-34-10", "cifar100", "wrn34_10"),
        ("Cui2023Decoupled_WRN-28-10", "cifar10", "wrn28_10_swish"),
        ("Wang2023Better_WRN-70-16", "cifar10", "wrn70_16_swish"),
        ("Wu2020Adversarial", "cifar100", "wrn34_10"),
        ("Rice2020Overfitting", "cifar100", "preact_resnet18"),
        ("Zhang2019Theoretically", "cifar10", "wrn34_10"),
        ("Gowal2020Uncovering_34_20", "cifar10", "wrn34_20_swish"),
        ("Rade2021Helper_R18_extra", "cifar10", "preact_resnet18_swish"),
    ):
        assert find_network(name, dataset=dataset).network == network


def test_a_norm_chooses_among_models_of_one_name_and_a_unique_beginning_is_enough() -> None:
    assert find_network("Rice2020Overfitting", dataset="cifar10").network == "wrn34_20"
    assert find_network("Rice2020Overfitting", dataset="cifar10", norm="l2").network == "preact_resnet18"
    assert find_network("zhang2019theo", dataset="cifar10").id == "Zhang2019Theoretically"
    assert find_network("Gowal2020Uncovering_extra", dataset="cifar10").norm == "L2"


@pytest.mark.parametrize(
    ("name", "asked", "says"),
    [
        ("Cui2023", {"dataset": "cifar10"}, r"ambiguous: choose one of Cui2023Decoupled_WRN-28-10, Cui2023Dec"),
        ("Cui2024Decoupled_WRN-34-10", {"dataset": "cifar10"}, "did you mean Cui2023Decoupled_WRN-34-10"),
        ("Wu2020Adversarial", {"dataset": "digits"}, "data=digits; choose one of cifar10, cifar100"),
        ("Zhang2019Theoretically", {"dataset": "cifar10", "norm": "l2"}, "another norm than norm=l2: give norm=linf"),
    ],
)
def test_other_names_are_refused(name: str, asked: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_network(name, **asked)
