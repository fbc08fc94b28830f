"""Manifests are read strictly: a mistake is refused with the file, the field and what is allowed."""

import re
from pathlib import Path

import pytest

from dkl.config.compose import choices
from dkl.manifests import load, names
from dkl.manifests.manifest import Claim, Column, Manifest, read

WHOLE = """
title: A table
overrides: [data=digits]
evaluate: [attacks=pgd]
seeds: [0, 1]
columns:
  clean: {title: Clean, metric: clean}
  robust: {title: PGD, metric: robust, attacks: pgd-20}
  both: {title: Both, metric: mean, of: [clean, robust]}
teachers:
  big: {overrides: [task=classification]}
rows:
  - {name: ours, label: IKL-AT, overrides: [loss=ikl], paper: {clean: 60.5}, published: {README: {clean: 60.4}}}
  - {name: theirs, label: KL, quoted: true, paper: {clean: 59}}
  - {label: KD, teacher: big, overrides: [task=distillation], evaluate: [[attacks=none], [attacks=pgd]]}
claims:
  - {better: ours, than: theirs, column: clean}
"""


def written(folder: Path, text: str, name: str = "table-99") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_manifest_is_what_its_file_says(tmp_path: Path) -> None:
    found = read(written(tmp_path, WHOLE))
    ours, theirs, kd = found.rows
    assert (found.kind, found.number, found.seeds) == ("table", 99, (0, 1))
    assert (ours.paper, ours.published, ours.quoted) == ({"clean": 60.5}, {"README": {"clean": 60.4}}, None)
    assert theirs.quoted is not None
    assert "not trained here" in theirs.quoted
    assert kd.name == kd.label == "KD"
    assert kd.evaluate == (("attacks=none",), ("attacks=pgd",))
    assert ours.evaluate is None
    assert found.evaluate == (("attacks=pgd",),)
    assert found.columns["both"].of == ("clean", "robust")
    assert [row.name for row in found.runnable] == ["ours", "KD"]
    assert found.teachers["big"].name == "teacher big"


def test_every_manifest_of_the_repository_is_read() -> None:
    found = {name: load(name) for name in names()}
    numbers = {manifest.number for manifest in found.values() if manifest.kind == "table"}
    assert numbers >= {*range(1, 6), *range(7, 19)}
    assert {manifest.number for manifest in found.values() if manifest.kind == "figure"} == {2, 3}
    for manifest in found.values():
        if manifest.kind == "table":
            assert manifest.caption, manifest.name
            assert manifest.columns, manifest.name
            assert not manifest.runnable or manifest.seeds == (0, 1, 2), manifest.name
    # dkl reproduce --help shows the first line only.
    assert [name for name, line in choices("experiments").items() if not line.endswith(".")] == []


PUBLISHED_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet", "imagenet_lt": "ImageNet-LT"}
PUBLISHED_DATA |= {"ade20k": "ADE20K", "camvid": "CamVid", "digits": "digits"}

CLAIMS = [(name, claim) for name in names() for claim in load(name).claims]


def gain(manifest: Manifest, better: str, than: str, column: str) -> float | None:
    """By how much the paper's value of a row is above another's; last and best epochs are mixed in some tables."""
    rows = {row.name: row.paper for row in manifest.rows}
    columns = (column, "best") if column == "top1" else (column,)
    first, second = (next((rows[name][key] for key in columns if key in rows[name]), None) for name in (better, than))
    return None if first is None or second is None else first - second


def data_of(manifest: Manifest, row: str) -> str:
    overrides = next(found.overrides for found in manifest.rows if found.name == row)
    choices = [text for text in (*manifest.overrides, *overrides) if text.startswith("data=")]
    return PUBLISHED_DATA[re.split("[=_](?!lt)", choices[-1])[1]]


def measured(manifest: Manifest, column: Column) -> set[object]:
    """What a column measures: a metric of natural images, or attacks; AutoAttack if it is bounded too."""
    parts = [manifest.columns[name] for name in column.of] or [column]
    return {
        "AutoAttack"
        if part.attacks in ("standard", "bounded")
        else part.attacks
        if part.metric == "robust"
        else part.metric
        for part in parts
    }


def test_a_claim_of_another_paper_is_none_of_the_paper() -> None:
    assert {claim.source.partition(" ")[0] for _, claim in CLAIMS} == {"", "Table", "the"}


@pytest.mark.parametrize(("name", "claim"), [pair for pair in CLAIMS if "Table" in pair[1].source])
def test_a_claim_that_cites_a_table_has_its_comparison_there(name: str, claim: Claim) -> None:
    assert claim.paper is not None
    better, than, column = claim.paper
    own, cited = load(name), load(f"table-{int(claim.source.removeprefix('Table ')):02}")
    difference = gain(cited, better, than, column)
    assert difference is not None
    assert difference > 0
    (data,) = {data_of(cited, better), data_of(cited, than)}
    _, _, differs = claim.text.partition(" (paper: ")
    assert data == data_of(own, claim.better) or differs.endswith(f"{data})")
    here, there = (measured(of, of.columns[key]) for of, key in ((own, claim.column), (cited, column)))
    assert here == there or {differs.partition(",")[0]} == there


@pytest.mark.parametrize("name", [name for name in names() if name.startswith(("table", "official"))])
def test_a_claim_of_a_table_has_the_sign_of_the_papers_values(name: str) -> None:
    for claim in load(name).claims:
        difference = gain(load(name), claim.better, claim.than, claim.column)
        assert difference is None or difference > 0, claim
