"""model_info files against RobustBench's format, which is written down here from its own files."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dkl.errors import UserError
from dkl.records import Record
from dkl.reporting import model_info, write_model_info
from dkl.reporting.robustbench import model_id
from dkl.threat import AUTOATTACK
from tests.reporting import factories


def make_record(**overrides: Any) -> Record:
    """Return a record of budget paper unless ``overrides`` say otherwise."""
    return factories.make_record(**{"budget": "paper", **overrides})


ACCURACY, TEXT = r"^(100|[1-9]?\d)\.\d\d$", r"^[^\n]+$"
FORMAT: dict[str, type | str] = {
    "link": r"^(https://\S+)?$",
    "name": TEXT,
    "authors": "",
    "additional_data": bool,
    "number_forward_passes": int,
    "dataset": TEXT,
    "venue": TEXT,
    "architecture": TEXT,
    "eps": r"^(\d+/255|\d+(\.\d+)?)$",
    "clean_acc": ACCURACY,
    "reported": ACCURACY,
    "autoattack_acc": ACCURACY,
    "unreliable": bool,
    "footnote": TEXT,
}
"""The keys of RobustBench's files in their order: the type, or the pattern of a text."""


RECORDS = [
    make_record(),
    make_record(method="DKL-AT", norm="L2", eps=0.5, eps_text="0.5", warnings=["odd"]),
    make_record(method="GKL-AT", dataset="digits", eps=0.1, eps_text="0.1", additional_data=True),
    make_record(method="TRADES", clean=1.0, robust=1.0),
    make_record(method="PGD-AT", robust=0.0, training={"external_data": True}),
    make_record(method="my own", seed=None),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.method)
def test_files_have_robustbenchs_format(record: Record, tmp_path: Path) -> None:
    (path,), _ = write_model_info([record], tmp_path)
    info = json.loads(path.read_text(encoding="utf-8"))
    assert list(info) == list(FORMAT)
    for key, wanted in FORMAT.items():
        assert re.search(wanted, info[key]) if isinstance(wanted, str) else type(info[key]) is wanted, key
    assert info["additional_data"] is record.additional_data
    assert info["number_forward_passes"] == 1
    assert float(info["clean_acc"]) == pytest.approx(100 * record.clean, abs=0.005)
    assert float(info["autoattack_acc"]) == float(info["reported"]) == pytest.approx(100 * record.robust, abs=0.005)
    assert info["unreliable"] == bool(record.warnings)


def test_the_headline_entry_equals_robustbenchs() -> None:
    info = model_info(make_record(clean=0.6576, robust=0.3191))
    assert info | {"footnote": ""} == {
        "link": "https://arxiv.org/abs/2305.13948",
        "name": "Decoupled Kullback-Leibler Divergence Loss",
        "authors": "Jiequan Cui, Zhuotao Tian, Zhisheng Zhong, Xiaojuan Qi, Bei Yu, Hanwang Zhang",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar100",
        "venue": "NeurIPS 2024",
        "architecture": "WideResNet-34-10",
        "eps": "8/255",
        "clean_acc": "65.76",
        "reported": "31.91",
        "autoattack_acc": "31.91",
        "unreliable": False,
        "footnote": "",
    }


@pytest.mark.parametrize(
    ("method", "link", "venue"),
    [
        ("IKL-AT", "https://arxiv.org/abs/2305.13948", "NeurIPS 2024"),
        ("DKL", "https://arxiv.org/abs/2305.13948", "NeurIPS 2024"),
        ("gkl-at+awp", "https://arxiv.org/abs/2503.08038", "arXiv 2025"),
        ("TRADES", "https://arxiv.org/abs/1901.08573", "ICML 2019"),
        ("TRADES-AWP", "https://arxiv.org/abs/2004.05884", "NeurIPS 2020"),
        ("PGD-AT", "https://arxiv.org/abs/1706.06083", "ICLR 2018"),
        ("IKLESS", "", "Unpublished"),
    ],
)
def test_methods_are_cited(method: str, link: str, venue: str) -> None:
    info = model_info(make_record(method=method))
    assert (info["link"], info["venue"]) == (link, venue)
    if not link:
        assert (info["name"], info["authors"]) == (method, "")


@pytest.mark.parametrize("change", [{"budget": "mini"}, {"budget": "own"}], ids=str)
def test_other_sizes_are_not_attributed_to_the_paper(change: dict[str, Any]) -> None:
    record = make_record(**change)
    info = model_info(record)
    assert (info["name"], info["venue"]) == (f"IKL-AT (budget {record.budget})", "Unpublished")
    assert info["link"] == info["authors"] == ""
    assert model_id(record).startswith("Unpublished_WRN-34-10_IKL-AT_s0")


def test_robustbenchs_radius_is_not_part_of_the_name() -> None:
    def name(**radius: Any) -> str:
        return model_id(make_record(**radius))

    plain = "Cui2023Decoupled_WRN-34-10_IKL-AT_s0"
    assert name() == name(eps=0.03137, eps_text="0.03137") == name(norm="L2", eps=0.5, eps_text="0.5") == plain
    assert name(eps=2 / 255, eps_text="2/255") == f"{plain}_eps2_255"
    assert name(dataset="imagenet", eps=4 / 255, eps_text="4/255") == plain
    assert name(dataset="imagenet") == f"{plain}_eps8_255"


def test_the_footnote_says_how_it_was_made() -> None:
    record = make_record(seed=3, n=512, budget="mini", evaluation_seed=9)
    expected = (
        "Trained and evaluated with the dkl code: IKL-AT, seed 3, weights last, budget mini, 512 test images, "
        "AutoAttack seed 9."
    )
    assert model_info(record)["footnote"] == expected
    foreign = model_info(make_record(seed=None))["footnote"]
    assert "trained elsewhere" in foreign
    assert "None" not in foreign


@pytest.mark.parametrize(
    "wrong",
    [
        {"attacks": ["apgd-ce", "apgd-t"]},
        {"attacks": [*AUTOATTACK, "pgd-50-r9"]},
        {"budget": "smoke"},
        {"partial": True, "n": 64},
    ],
    ids=str,
)
def test_only_autoattack_results_on_the_whole_test_set_are_exported(wrong: dict[str, object], tmp_path: Path) -> None:
    record = make_record(id="named", **wrong)
    with pytest.raises(UserError, match="named"):
        model_info(record)
    written, skipped = write_model_info([record], tmp_path)
    assert not written
    assert not list(tmp_path.iterdir())
    assert len(skipped) == ("budget" not in wrong)
    assert all("named" in message for message in skipped)


def test_one_message_per_reason_names_some_records(tmp_path: Path) -> None:
    weak = [make_record(id=f"weak-{seed}", seed=seed, attacks=["pgd-20"]) for seed in range(6)]
    _, messages = write_model_info([*weak, make_record(id="few", seed=9, partial=True, n=64)], tmp_path)
    assert {message.partition(": it")[0] for message in messages} == {
        "not exported to RobustBench: weak-0, weak-1, weak-2, weak-3 and 2 more",
        "not exported to RobustBench: few",
    }


def test_files_are_named_as_robustbench_does(tmp_path: Path) -> None:
    records = [
        make_record(),
        make_record(method="a/b ü", seed=2, norm="L2", eps=0.5),
        make_record(seed=None, dataset="digits", eps=0.1, eps_text="0.1"),
    ]
    written, _ = write_model_info(records, tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    assert "cifar100/Linf/Cui2023Decoupled_WRN-34-10_IKL-AT_s0.json" in names
    assert f"digits/Linf/Cui2023Decoupled_WRN-34-10_IKL-AT_{records[2].checkpoint_sha256[:8]}.json" in names
    assert "cifar100/L2/Unpublished_WRN-34-10_a_b_s2.json" in names
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) for path in written)


def test_other_radii_have_folders_of_their_own(tmp_path: Path) -> None:
    """RobustBench makes one table of all files in a folder."""
    radii = ("8/255", "2/255", "0.031372549")
    records = [make_record(seed=k, eps=float(Fraction(text)), eps_text=text) for k, text in enumerate(radii)]
    l2 = make_record(seed=3, norm="L2", eps=1.0, eps_text="1")
    unknown = make_record(seed=4, dataset="mine")
    own = make_record(seed=5, dataset="digits", eps=0.1, eps_text="0.1")
    written, _ = write_model_info([*records, l2, unknown, own], tmp_path)
    folders = [path.parent.relative_to(tmp_path).as_posix() for path in written]
    assert sorted(folders) == [
        *("cifar100/L2-eps1", "cifar100/Linf", "cifar100/Linf", "cifar100/Linf-eps2_255"),
        *("digits/Linf", "mine/Linf-eps8_255"),
    ]


def test_models_of_one_name_are_all_kept_and_never_renamed(tmp_path: Path) -> None:
    first = make_record(row="a", id="a", robust=0.3)
    second = make_record(row="b", id="b", robust=0.2, created="2026-01-01T00:00:00Z")
    again = make_record(row="a", id="c", robust=0.1, created="2027-01-01T00:00:00Z")
    (alone,), _ = write_model_info([first], tmp_path)
    both, _ = write_model_info([second, first], tmp_path)
    assert both[0] == alone
    assert len(set(both)) == 2
    after, _ = write_model_info([again, second, first], tmp_path)
    assert after == both
    assert sorted(path for path in tmp_path.rglob("*.json")) == sorted(both)
    accuracies = [float(json.loads(path.read_text())["autoattack_acc"]) for path in after]
    assert accuracies == pytest.approx([100 * again.robust, 100 * second.robust])


def test_synthetic_images_are_a_footnote_and_not_additional_data() -> None:
    record = make_record(
        seed=3, synthetic="cifar10/1m.npz, 70 % of every batch", weights="best epoch 7 (average, cw-40)"
    )
    entry = model_info(record)
    assert entry["additional_data"] is False
    assert "Uses synthetic images: cifar10/1m.npz, 70 % of every batch." in entry["footnote"]
    assert "weights best epoch 7 (average, cw-40)" in entry["footnote"]
    assert model_id(record).endswith("_s3_best")
