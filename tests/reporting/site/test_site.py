"""The results page as a file: complete, escaped, without requests, with every record and paper table."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dkl.manifests import Claim, Column, Manifest, ManifestRow
from dkl.records import Bound, Record, save
from dkl.records.metrics import wilson
from dkl.reporting import leaderboards
from dkl.reporting.boards.claims import claim_boards
from dkl.reporting.boards.paper import PaperRow, make_board
from dkl.reporting.site import runs_data, write_site
from dkl.reporting.statistics import Comparison, Measurement
from dkl.threat import SUITES
from tests.factories import make_flags
from tests.reporting.factories import make_record, make_seeds

HOSTILE = "</script><script>document.title='pwned'</script>"
CURVES = [
    {"epoch": epoch, "lr": 0.1, "loss": 2 / epoch, "natural_accuracy": epoch / 10, "test_accuracy": epoch / 20}
    for epoch in (1, 2, 3)
]
TABLE = Manifest(
    name="table-02",
    title="Table 2: <b>robustness</b>",
    caption="The caption of the paper.",
    columns={"clean": Column(title="Clean", metric="clean")},
    rows=(ManifestRow(name="a", label="A", paper={"clean": 65.76}), ManifestRow(name="b", label="B", quoted="quoted")),
)
FIGURE = Manifest(name="figure-02", title="Figure 2: trade-off", caption="Points.", figure={"draw": "tradeoff"})
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


def make_site(
    folder: Path, records: list[Record], problems: list[str] | None = None, figures: list[Path] | None = None
) -> Path:
    """Write the page of ``records`` to ``folder``; records of trained weights have curves."""
    for record in records:
        save(record, make_flags(record), folder / "records", () if record.seed is None else CURVES)
    boards = leaderboards(records)
    return write_site(folder, records, boards, figures or [], problems or [], [FIGURE, TABLE])


class Page(HTMLParser):
    """Reads a page; fails if tags do not close in order. ``around`` has the tags around each element with an id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.around: dict[str, list[str]] = {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if place := dict(attrs).get("id"):
            self.around[place] = [outer for outer, _ in self.open]
        if tag not in ("meta", "input", "img"):
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        places = tuple(str(attributes["id"]) for _, attributes in self.open if attributes.get("id"))
        self.texts.append((places, data))

    def text(self, place: str) -> str:
        """Return all text inside the element with the id ``place``."""
        return "".join(data for places, data in self.texts if place in places)

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.tags if name in attributes]

    @property
    def data(self) -> dict[str, Any]:
        """Return the values that the script shows."""
        found: dict[str, Any] = json.loads(self.text("data"))
        return found


@pytest.fixture
def everything(tmp_path: Path) -> list[Record]:
    """Return records of every kind."""
    hostile = make_record(id="hostile", method=HOSTILE, warnings=[HOSTILE], training={"note": HOSTILE})
    accuracy = make_record(id="kd", attacks=[], top5=0.9, shots={"few": 0.3}, best=0.8, best_epoch=7, budget="mini")
    foreign = make_record(id="foreign", seed=None, method="Cui2023")
    return [*make_seeds([0.21, 0.24]), hostile, accuracy, foreign, make_record(id="tiny", budget="smoke")]


def test_the_page_requests_nothing(tmp_path: Path, everything: list[Record]) -> None:
    picture = tmp_path / "figures" / "figure-02.svg"
    picture.parent.mkdir()
    picture.write_bytes(SVG)
    page = Page(make_site(tmp_path, everything, figures=[picture]))
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "form"})
    assert all(address.startswith("#") for address in page.attributes("href"))
    assert all(address.startswith("data:") for address in page.attributes("src"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    code = page.source[page.source.rindex("<script>") :] + page.source[: page.source.index("</style>")]
    assert set(re.findall(r"https?://\S+?(?=\")", code)) == {
        "http://www.w3.org/1999/xhtml",
        "http://www.w3.org/2000/svg",
    }
    assert not re.search(r"url\(|@import|\bfetch\b|XMLHttp|innerHTML|\beval\b", code)
    (policy,) = [str(a["content"]) for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy


def test_ids_are_unique_links_lead_somewhere_and_hostile_text_stays_text(
    tmp_path: Path, everything: list[Record]
) -> None:
    page = Page(path := make_site(tmp_path, everything, [f"{HOSTILE} is no record"]))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    runs = {f"run/{record.id}" for record in everything}
    links = {address.removeprefix("#") for address in page.attributes("href")}
    assert links <= runs | set(ids)
    assert runs <= links
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert HOSTILE in page.text("leaderboards")
    (shown,) = [record for record in page.data["records"] if record["id"] == "hostile"]
    assert shown["method"] == HOSTILE
    first = path.read_bytes()
    assert make_site(tmp_path, everything, [f"{HOSTILE} is no record"]).read_bytes() == first


def test_every_record_has_its_accuracies_intervals_curves_configuration_and_provenance(tmp_path: Path) -> None:
    record = make_record(clean=0.6, robust=0.3, training={"trainer": {"epochs": 3}}, git_commit="abc123", n=500)
    (shown,) = Page(path := make_site(tmp_path, [record])).data["records"]
    run = Page(path).data["runs"][shown["run"]]
    assert run["training"]["trainer"] == {"epochs": 3}
    assert run["curves"]["loss"] == pytest.approx([2, 1, 2 / 3], rel=1e-4)
    found = {accuracy["name"]: accuracy for accuracy in shown["accuracies"]}
    assert [name for name in found if name.startswith("Robust after")] == [
        *(f"Robust after {a}" for a in record.attacks),
        "Robust after all attacks",
    ]
    assert found["Robust after all attacks"]["percent"] == pytest.approx(30)
    assert found["Robust after all attacks"]["interval"] == pytest.approx([100 * b for b in wilson(0.3, 500)], abs=0.01)
    shared = {"versions", "hardware", "git_commit", "checkpoint_sha256", "data_sha256", "config_hash", "seed"}
    assert shared | {"evaluation_seed", "created", "seconds"} <= set(shown["provenance"])
    assert shown["provenance"]["git_commit"] == "abc123"


def test_a_bounded_result_has_the_interval_of_its_row(tmp_path: Path) -> None:
    bound = Bound(low=0.22, high=0.25, tolerance=3.0)
    record = make_record(n=500, robust=0.25, attacks=list(SUITES["bounded"]), bound=bound)
    (shown,) = runs_data([record], tmp_path)[0]["records"]
    (accuracy,) = [accuracy for accuracy in shown["accuracies"] if "all attacks" in accuracy["name"]]
    low, high = wilson(0.25, 500)
    assert accuracy["interval"] == pytest.approx([100 * (low - 0.03), 100 * high], abs=0.01)


def test_evaluations_of_one_run_share_its_curves_and_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    radii = [make_record(id=f"r{eps}", eps=eps / 255, eps_text=f"{eps}/255", training={"a": 1}) for eps in range(2, 13)]
    curves = [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 1.0}]
    for record in radii:
        save(record, make_flags(record), tmp_path / "records", curves)
    data = Page(write_site(tmp_path, radii, [], [], [], [])).data
    assert len(data["records"]) == 11
    (run,) = data["runs"].values()
    assert run["curves"] == {"epoch": [1, 2], "loss": [None, 1]}


def test_budgets_and_broken_files_are_listed_without_the_folders_path(tmp_path: Path, everything: list[Record]) -> None:
    path = make_site(tmp_path, everything)
    (tmp_path / "records" / "kd.csv").write_text("loss\n1\n")
    problems = [f"{tmp_path}/records/torn.json is not a usable record", "/home/me/theirs/cut.json is not one either"]
    write_site(tmp_path, everything, [], [], problems, [])
    page = Page(path)
    top = page.text("leaderboards")
    assert "records/torn.json is not a usable record" in top
    assert "records/kd.csv is not a usable file of curves" in top
    assert "cut.json is not one either" in top
    assert str(tmp_path) not in page.source
    assert "/home/me" not in page.source
    assert "no result" in top
    assert "not comparable with published values" in top


def test_tables_without_runs_parts_of_the_test_set_and_published_figures_are_folded(tmp_path: Path) -> None:
    figures = [tmp_path / f"{name}.svg" for name in ("figure-02", "ranking-own", "images-own-x", "dynamics-mini")]
    for path in figures:
        path.write_bytes(SVG)
    weaker = make_record(id="weaker", partial=True, n=500, eps=4 / 255, eps_text="4/255")
    page = Page(make_site(tmp_path, [make_record(), weaker], figures=figures))
    folded = [place for place, outer in page.around.items() if "details" in outer]
    assert folded == ["cifar100-Linf-eps4_255-own-part", "table-02", "figure-02"]
    assert page.text("figures").index("Attacked images") < page.text("figures").index("published values only")
    kinds = [attributes["class"] for tag, attributes in page.tags if tag == "img"]
    assert sorted(kinds) == ["photo", "plot", "plot", "wide plot"]
    alone = Page(make_site(tmp_path / "alone", [weaker]))
    assert "details" not in alone.around["cifar100-Linf-eps4_255-own-part"]


def test_budgets_are_explained_numbers_do_not_break_and_a_narrow_screen_keeps_three_columns(tmp_path: Path) -> None:
    smoke = make_record(budget="smoke", clean=0.7777)
    page = Page(make_site(tmp_path, [*make_seeds([0.21, 0.24], budget="mini"), smoke]))
    assert "reduced to what a CPU can train" in page.text("leaderboards")
    assert "at full size" not in page.text("leaderboards"), "this budget has no runs"
    assert "77.77" not in page.text("runs")
    shown = page.data["records"][-1]
    assert not shown["result"]
    assert "no result" in shown["budget"]
    assert "22.50\xa0±\xa02.12" in page.source
    assert {page.around[control][-1] for control in ("filter", "budget")} == {"label"}
    assert page.around["clear"][-1] == "p"
    board = page.source[page.source.index('<article id="cifar100-Linf-eps8_255-mini"') :].split("</article>")[0]
    heads = re.findall(r'<th scope="col" class="([^"]*)"><button type="button">([^<]*)<', board)
    assert [name for kinds, name in heads if "more" not in kinds] == ["Rank", "Method", "Robust (%)"]
    assert f'<label class="columns"><input type="checkbox"> all {len(heads)} columns</label>' in board


def test_a_table_shows_the_papers_values_and_links_ours_if_there_are_runs(tmp_path: Path) -> None:
    record = make_record(budget="mini", clean=0.4242)
    without = Page(make_site(tmp_path, [record]))
    assert "65.76" in without.text("table-02")
    assert "values of the paper" in without.text("table-02")
    assert "ours" not in without.text("table-02")
    measured = [{"clean": {0: Measurement(record.clean, (record,))}}, {"clean": {}}]
    rows = [PaperRow(row, row.paper, cells) for row, cells in zip(TABLE.rows, measured, strict=True)]
    board = make_board(TABLE, "mini", rows, {}, [])
    page = Page(write_site(tmp_path, [record], [board], [], [], [TABLE]))
    assert "runs of budget mini" in page.text("tables")
    assert "65.76" in page.text("table-02-mini")
    assert "42.42" in page.text("table-02-mini")
    assert page.attributes("href").count(f"#run/{record.id}") == 2  # in the table, and in the list of runs


def test_the_papers_claims_come_first_and_experiments_are_in_its_order(tmp_path: Path) -> None:
    boards = []
    for name, source in {"a-late": "Table 17", "b-early": "Table 1"}.items():
        cited = Claim(better="a", than="b", column="clean", text=f"{name} cited", source=source)
        manifest = replace(TABLE, name=name, title=name, claims=(cited, replace(cited, text=f"{name} own", source="")))
        outcome = Comparison(difference=0.1, low=0.01, high=0.2, p=0.01, seeds=(0, 1), n=100, test="t")
        boards.append(make_board(manifest, "own", [], {0: outcome, 1: outcome}, []))
    page = write_site(tmp_path, [], [*claim_boards(boards), *boards], [], [], [board.manifest for board in boards])
    verdicts, _, tables = re.sub("<[^>]*>", " ", page.read_text()).partition("Tables of the paper")
    places = [
        verdicts.index(text) for text in ("b-early cited", "a-late cited", "Our own expectations (2)", "b-early own")
    ]
    assert places == sorted(places)
    assert tables.index("b-early (") < tables.index("a-late (")
    Page(page)


def test_figures_are_embedded_from_the_smaller_file_with_a_caption(tmp_path: Path) -> None:
    files = {
        "figure-02.png": b"p" * 100,
        "figure-02.svg": SVG,
        "figure-02-mini.png": b"mini",
        "curves-mini-x.png": b"curves",
        "radii-mini-cifar10.png": b"radii",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    page = Page(make_site(tmp_path, [make_record()], figures=[tmp_path / name for name in files]))
    embedded = dict(zip(page.attributes("alt"), page.attributes("src"), strict=True))
    kinds = [address.partition(";base64,")[::2] for address in embedded.values()]
    found = {base64.b64decode(encoded): kind for kind, encoded in kinds}
    assert found == {SVG: "data:image/svg+xml", b"mini": "data:image/png", b"radii": "data:image/png"}
    assert "Figure 2: trade-off. Points. Published values" in page.text("figure-02")
    assert "Budget mini" in page.text("figure-02-mini")
