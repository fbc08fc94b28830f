"""RobustBench's list and the networks of its models agree with each other, and names are found or refused."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from dkl.errors import UserError
from dkl.models import create_model
from dkl.models.parts import with_prefixes
from dkl.models.sources.named import IMAGES
from dkl.published import find_network, known_networks, published_entries
from tests.models.common import count

NETWORKS, OFFICIAL = (
    tuple(each for each in known_networks(scheme) if each.network) for scheme in ("robustbench", "official")
)

HUANG = {"conv1.": "stem_conv.", "block1.": "blocks.0.", "block2.": "blocks.1.", "block3.": "blocks.2."}


def test_every_model_is_in_the_table_and_most_can_be_built() -> None:
    entries = {(each.dataset, each.norm, each.id) for each in published_entries()}
    known = {(each.dataset, each.norm, each.id) for each in known_networks()}
    assert known <= entries
    assert len(known) == len(known_networks()) == 165
    assert len(NETWORKS) == 152
    assert all(each.why for each in known_networks() if each not in NETWORKS)
    assert all(all(each.files) for each in (*NETWORKS, *OFFICIAL))
    assert all(each.preprocessing for each in NETWORKS if each.dataset == "imagenet")


def test_entries_are_plausible() -> None:
    for entry in published_entries():
        assert 0 <= entry.robust <= entry.clean <= 1
        assert entry.link.startswith("http") or not entry.link


def test_every_network_has_the_keys_shapes_and_size_of_the_official_one() -> None:
    """``official_keys.json`` has the hashes of the state_dicts of RobustBench's own classes at 78fcc9e."""
    official = json.loads((Path(__file__).parent / "official_keys.json").read_text())
    built: dict[str, tuple[dict[str, tuple[int, ...]], int]] = {}
    for network in (*NETWORKS, *OFFICIAL):
        classes = IMAGES[network.dataset][0]
        key = f"{network.network} {network.arguments} {classes}"
        if key not in built:
            with torch.device("meta"):
                model = create_model(str(network.network), classes, **network.arguments)
            built[key] = ({name: tuple(value.shape) for name, value in model.state_dict().items()}, count(model))
        shapes, parameters = built[key]
        assert parameters == network.parameters, network.id
        shapes = {name.removeprefix("models.0."): shape for name, shape in shapes.items()}
        if network.id == "Chen2020Adversarial":  # one file per member
            shapes = {name: shape for name, shape in shapes.items() if not name.startswith("models.")}
        if network.network == "wrn34_10" and "widths" in network.arguments:  # renamed when they are loaded
            shapes = with_prefixes(shapes, HUANG)
        text = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
        expected = official.get(f"{network.dataset} {network.norm} {network.id}")
        # RobustBench cannot build its two MIMIR networks without memory; the authors' networks are of these families.
        assert expected in (None, hashlib.sha256(text.encode()).hexdigest()[:16]), network.id
    assert len(official) == 150


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
        ("Wu2020Adversarial", {"dataset": "digits"}, "no model of data=digits: give data=cifar10 or data=cifar100"),
        ("Salman2020Do_R50", {"dataset": "cifar10"}, "no model of data=cifar10: give data=imagenet"),
        ("Bai2024MixedNUTS", {"dataset": "cifar10"}, "cannot be built here, it mixes two networks"),
        ("Zhang2019Theoretically", {"dataset": "cifar10", "norm": "l2"}, "another norm than norm=l2: give norm=linf"),
    ],
)
def test_other_names_are_refused(name: str, asked: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_network(name, **asked)
