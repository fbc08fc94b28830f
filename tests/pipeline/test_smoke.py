"""Tables and figures of the paper at budget smoke, as ``make reproduce-table-N BUDGET=smoke`` makes them.

Tables share a folder of results, and with it the runs and teachers that they have in common. Their manifests are cut to
one row per way of training and kind of images: the other rows of a table train two batches in the tests of rows. A
table all of whose rows are trained in the way of an earlier table only prints its commands.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from dkl import records
from dkl.config import shipped
from dkl.manifests import load, names
from tests.cli.common import call
from tests.pipeline.steps import path

MANIFESTS = [load(name) for name in names()]
TABLES = [found for found in MANIFESTS if found.kind == "table" and found.runnable]
FIGURES = [found for found in MANIFESTS if found.kind == "figure"]


def attacked(name: str) -> bool:
    """Whether a table is of adversarial training; Table 1 is of both."""
    return any(column.metric == "robust" for column in load(name).columns.values())


GROUPS = {
    "adversarial training": [found.name for found in (*TABLES, *FIGURES) if found in FIGURES or attacked(found.name)],
    "distillation": [found.name for found in TABLES if not attacked(found.name)],
}


def way(overrides: frozenset[str]) -> frozenset[str]:
    """What decides how a row trains, is evaluated and tabulated; of the losses only WKD looks at the images before.

    Recipes of one name differ in numbers, and both CIFARs in the number of classes.
    """
    decisive = (text for text in overrides if text.startswith(("task=", "data", "averaging", "recipe=", "loss=wkd")))
    return frozenset(re.sub(r"(_mobile|_review|_N|_34_N)+$|(?<=cifar)100?(?=_)", "", text) for text in decisive)


def cut(names: Sequence[str], folder: Path) -> list[str]:
    """Write the manifests ``names`` to ``folder``, without the rows that train in the way of an earlier row.

    The first two rows of a figure stay, because it draws them. Returns the manifests of which no row would stay: they
    keep their first.
    """
    seen: set[frozenset[str]] = set()
    repeated = []
    for name in names:
        content = yaml.safe_load((shipped("experiments") / f"{name}.yaml").read_text())
        shared, rows = content.get("overrides", []), []
        for row in content["rows"]:
            own = [text for text in row.get("overrides", []) if not text.startswith("model=")]
            found = way(path([*shared, *own, *content.get("at", {}).get("smoke", [])]))
            needed = "figure" in content and len(rows) < 2
            if "quoted" not in row and (needed or found not in seen):
                rows.append(row)
            seen.add(found)
        if not rows:
            repeated.append(name)
            rows = [row for row in content["rows"] if "quoted" not in row][:1]
        kept = {row.get("name", row["label"]) for row in rows}
        claims = [claim for claim in content.get("claims", []) if {claim["better"], claim["than"]} <= kept]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**content, "rows": rows, "claims": claims}))
    return repeated


def reproduce(name: str, results: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    kind, number = name.split("-")
    arguments = [f"{kind}={int(number)}", "budget=smoke", f"paths.results={results}", *more]
    ended = call(capsys, "reproduce", *arguments)
    assert ended.status == 0, ended.err
    return ended.out


def check_table(name: str, results: Path, printed: str) -> None:
    """Every row that runs has measured figures, and the table says that it is no result."""
    manifest, board = load(name), results / "tables" / f"{name}-smoke"
    assert f"{manifest.title} (smoke: no result)" in " ".join(printed.split())  # lines end at 80 characters
    for ending in (".md", ".csv", ".tex", ".html"):
        assert board.with_suffix(ending).is_file()
    cells = {row["row"]: row for row in csv.DictReader(board.with_suffix(".csv").read_text().splitlines())}
    for row in manifest.runnable:
        assert cells[row.name]["seed_list"] == "0", (name, row.name)
        assert any(cells[row.name].get(f"{key}_mean") for key in manifest.columns), (name, row.name)


@pytest.mark.slow(minutes=2)
@pytest.mark.parametrize("tables", GROUPS.values(), ids=GROUPS)
def test_every_table_and_figure_at_smoke(
    tables: Sequence[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiments = tmp_path_factory.mktemp("experiments")
    repeated = cut(tables, experiments)
    monkeypatch.setattr("dkl.manifests.manifest.shipped", lambda folder: experiments)
    for name in tables:
        printed = reproduce(name, tmp_path, capsys, *(["dry_run=true"] if name in repeated else []))
        if name in repeated:
            assert printed.count("dkl train ") == 1 + sum(bool(row.teacher) for row in load(name).runnable)
        elif load(name).kind == "table":
            check_table(name, tmp_path, printed)
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    for name in (name for name in tables if load(name).kind == "figure"):
        assert any(file.startswith(name) for file in drawn), (name, drawn)
    _, problems = records.load_all(tmp_path / "records")
    assert problems == []
    ended = call(capsys, "tables", "--html", f"results={tmp_path}", "smoke=true")
    assert ended.status == 0, ended.err
    assert "no result" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), [("cifar10-mini", "gkl-awp"), ("cifar10-mini-overfitting", "pgd-awp")])
def test_experiments_of_adversarial_training_run(
    name: str, row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their evaluations fit smoke: a part of the test set, and the weights of the best epoch."""
    arguments = [f"experiment={name}", f"row={row}", "budget=smoke", f"paths.results={tmp_path}"]
    ended = call(capsys, "reproduce", *arguments)
    assert ended.status == 0, ended.err
    evaluations = next(found for found in load(name).rows if found.name == row).evaluate or load(name).evaluate
    assert len(list((tmp_path / "records").glob("*.json"))) == len(evaluations) == 2
