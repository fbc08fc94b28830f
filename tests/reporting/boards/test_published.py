"""Published rows of leaderboards: complete, ranked together with ours, and only at budget paper."""

import re

import pytest

from dkl.config import compose_config
from dkl.manifests import load, names
from dkl.reporting import Leaderboard, leaderboards
from dkl.reporting.boards.entries import RADIUS, published_rows
from dkl.threat import parse_eps
from tests.reporting.factories import make_record, make_seeds

PUBLISHED = published_rows([load(name) for name in ("table-02", "table-03", "table-07")])


def board(**about: object) -> Leaderboard:
    """Return the only board of three seeds with a mean of 31.9 % at budget paper."""
    (found,) = leaderboards(make_seeds([0.318, 0.319, 0.32], **{"budget": "paper", **about}), True, PUBLISHED)
    return found


@pytest.mark.parametrize(("name", "dataset"), [("table-02", "cifar100"), ("table-03", "cifar10")])
def test_every_pair_of_accuracies_of_a_table_is_a_row_with_its_sources(name: str, dataset: str) -> None:
    expected = {
        (figures["clean"], figures["autoattack"], row.label, source)
        for row in load(name).rows
        for source, figures in {f"Table {name[-1]}": row.paper, **row.published}.items()
        if not source.startswith("README")
    }
    rows = PUBLISHED[dataset, "Linf", round(RADIUS, 9)]
    assert expected == {
        (*(round(100 * row.means[key].mean, 9) for key in ("clean", "robust")), row.method.partition(" (")[0], source)
        for row in rows
        for source in str(row.source).split(", ")
    }
    assert len({(row.method, row.architecture, row.means["clean"], row.means["robust"]) for row in rows}) == len(rows)
    assert len(PUBLISHED) == 2


def test_ours_are_ranked_with_them_by_robust_accuracy() -> None:
    found = board()
    table, data = found.table(), found.data()
    robust = [float(row[data.header.index("robust_mean")]) for row in data.rows]
    assert robust == sorted(robust, reverse=True)
    assert [row[0] for row in table.rows] == [str(place) for place in range(1, len(robust) + 1)]
    (ours,) = [row for row in table.rows if row[-1] == "ours"]
    assert (ours[1], ours[3]) == ("IKL-AT", "31.90 ± 0.10")
    place = table.rows.index(ours)
    assert robust[place - 1] > 31.9 > robust[place + 1]
    assert [bool(ids) for ids in table.records] == [row is ours for row in table.rows]
    headline = next(row for row in table.rows if row[-1] == "Table 2, RobustBench Cui2023Decoupled_WRN-34-10")
    assert headline[1:5] == ("IKL-AT (basic)", "65.76", "31.91", "–")
    assert headline[5] == "WideResNet-34-10"
    assert any("published values that were not run here" in note for note in found.notes)


@pytest.mark.parametrize(
    "other",
    [{"budget": "mini"}, {"budget": "own"}, {"budget": "smoke"}, {"eps": 4 / 255, "eps_text": "4/255"}, {"norm": "L2"}],
    ids=str,
)
def test_other_boards_do_not_have_them(other: dict[str, object]) -> None:
    found = board(**other)
    assert [row.source for row in found.rows] == [None]
    assert "Source" not in found.table().header
    assert not any("not run here" in note for note in found.notes)


def test_weaker_attacks_stay_below_published_rows() -> None:
    fewer = make_record(budget="paper", attacks=["pgd-20"], robust=0.5)
    (found,) = leaderboards([fewer], published=PUBLISHED)
    assert (found.rows[-1].source, found.rows[-1].rank) == (None, None)
    assert {row.rank is None for row in found.rows[:-1]} == {False}


def test_their_radius_is_that_of_the_data_choices() -> None:
    for name in ("cifar10", "cifar100"):
        assert parse_eps(compose_config("train", [f"data={name}"]).data.eps) == RADIUS


def test_robustbench_entries_of_the_manifests_have_its_format() -> None:
    """Names are valid file names; accuracies have at most two decimals, and the robust one is below the clean one."""
    entries = {
        (manifest.overrides[0], source.removeprefix("RobustBench ")): figures
        for manifest in map(load, names())
        for row in manifest.rows
        for source, figures in row.published.items()
        if source.startswith("RobustBench ")
    }
    assert len(entries) > 12
    for (_, model), figures in entries.items():
        assert re.fullmatch(r"[A-Z][a-z]+20\d\d[A-Za-z0-9._-]+", model)
        assert list(figures) == ["clean", "autoattack"]
        assert all(
            re.fullmatch(r"\d\d\.\d\d", f"{value:.2f}") and round(value, 2) == value for value in figures.values()
        )
        assert figures["autoattack"] < figures["clean"]
