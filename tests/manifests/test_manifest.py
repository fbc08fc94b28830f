"""Manifests are read strictly: a mistake is refused with the file, the field and what is allowed."""

from pathlib import Path

import pytest

from dkl.config.choices import choices
from dkl.errors import UserError
from dkl.manifests import load, names
from dkl.manifests.manifest import read

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


WRONG = {
    "an unknown key": ("seeds: [0, 1]", "sede: [0, 1]", ["sede", "seeds"]),
    "no title": ("title: A table", "caption: A table", ["title"]),
    "an unknown metric": ("metric: clean}", "metric: cleen}", ["cleen", "clean"]),
    "a combination of unknown columns": ("of: [clean, robust]", "of: [clean, nope]", ["both", "nope"]),
    "a figure of an unknown column": ("paper: {clean: 59}", "paper: {klean: 59}", ["theirs", "klean"]),
    "an unknown teacher": ("teacher: big", "teacher: small", ["KD", "small", "teachers"]),
    "a quoted row that runs": ("label: KL, quoted", "label: KL, overrides: [loss=kl], quoted", ["theirs", "quoted"]),
    "two rows of one name": ("name: theirs", "name: ours", ["two rows", "ours"]),
    "a claim about an unknown row": ("than: theirs", "than: nobody", ["claim", "nobody"]),
    "an unknown origin": ("quoted: true,", "quoted: true, origin: mine,", ["origin", "mine", "quoted"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_names_the_file_and_what_is_allowed(mistake: str, tmp_path: Path) -> None:
    right, wrong, parts = WRONG[mistake]
    assert WHOLE.count(right) == 1
    with pytest.raises(UserError) as error:
        read(written(tmp_path, WHOLE.replace(right, wrong)))
    for part in ["table-99.yaml", *parts]:
        assert part in str(error.value)


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


def test_an_unknown_manifest_is_refused_with_the_known_names() -> None:
    with pytest.raises(UserError, match=r"nope.*table-02"):
        load("nope")
