"""The results page in headless Chromium, opened from a file at two widths: one launch of the browser for each."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dkl.manifests import load
from dkl.manifests.manifest import Claim
from dkl.records import Record, save
from dkl.reporting import leaderboards
from dkl.reporting.boards import Board
from dkl.reporting.boards.claims import ClaimRow, claim_boards
from dkl.reporting.boards.entries import published_rows
from dkl.reporting.boards.paper import PaperBoard, make_board
from dkl.reporting.boards.paper_rows import PaperRow
from dkl.reporting.site import write_site
from dkl.reporting.statistics import Comparison, Measurement
from tests.factories import make_flags
from tests.reporting.factories import make_record, make_seeds
from tests.reporting.site.test_site import CURVES, HOSTILE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is on PATH")

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000"),
)

PROBE = """
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const rows = place => $$(`#${CSS.escape(place)} tbody tr`).filter(row => row.offsetParent)
  .map(row => [...row.cells].map(cell => cell.textContent.replaceAll("\\u00a0", " ").trim()));
const shown = () => $$(".page").filter(page => page.offsetParent).map(page => page.id);
const turn = () => new Promise((done, fail) => {
  addEventListener("hashchange", () => setTimeout(done), { once: true });
  setTimeout(() => fail(new Error(`the address stays ${location.hash}`)), 1000);
});
const visit = async hash => { if (location.hash !== hash) { location.hash = hash; await turn(); } };
const head = (place, text) => $$(`#${CSS.escape(place)} th button`).find(button => button.textContent === text);
const look = place => ({ shown: shown(), rows: rows(place), hash: location.hash, count: $("#count").textContent,
  nothing: !$("#nothing").hidden, sorted: $$(`#${CSS.escape(place)} [aria-sort]`).map(h => h.ariaSort) });
const type = async words => {
  $("#filter").value = words;
  $("#filter").dispatchEvent(new Event("input"));
  await turn();
};
// Every page with all that is folded; then the names of the elements that are wider than their place.
const cutOff = async () => {
  const found = [];
  for (const page of ["#leaderboards", "#claims", "#tables", "#figures", "#runs", "#run/trades"]) {
    await visit(page);
    $$("details").forEach(box => { box.open = true; });
    for (const box of [document.documentElement, ...$$(".scroll")])
      if (box.scrollWidth > box.clientWidth) found.push(`${page} ${box.ariaLabel}`);
  }
  return found;
};
// Until a page is loaded, a new address replaces the old one in the history.
const loaded = new Promise(done => addEventListener("load", () => setTimeout(done)));
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(`policy: ${event.violatedDirective}`));
const report = found => { document.body.dataset.found = JSON.stringify({ found, errors }); };
"""


def drive(page: Path, steps: dict[str, str], *, width: int, address: str = "") -> dict[str, Any]:
    """Run ``steps``, bodies of async functions, one after the other in the page at ``address``.

    Returns the result of each step. An error in one of them, or in the page, fails.
    """
    before, after = page.read_text(encoding="utf-8").split("<body>", 1)
    calls = "".join(f"found.{name} = await (async () => {{ {step} }})();\n" for name, step in steps.items())
    act = f"<script>loaded.then(async () => {{ const found = {{}}; {calls} return found; }})"
    act += ".then(report, error => report({ error: String(error.stack) }))</script>"
    copy = page.with_name(f"driven-{width}.html")
    watched = f"{before}<body><script>{PROBE}</script>{after.replace('</body>', f'{act}</body>')}"
    copy.write_text(watched, encoding="utf-8")
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},1200"]
    command += ["--dump-dom", f"{copy.as_uri()}{address}"]
    run = subprocess.run(command, capture_output=True, timeout=120, check=True, text=True)
    answer = re.search(r'data-found="([^"]*)"', run.stdout)
    assert answer, run.stdout[-2000:]
    reply: dict[str, Any] = json.loads(unescape(answer[1]))
    assert reply["errors"] == []
    assert "error" not in reply["found"], reply["found"]["error"]
    found: dict[str, Any] = reply["found"]
    return found


BOARD, OTHER = "cifar100-Linf-eps8_255-own", "cifar10-Linf-eps8_255-mini"


def _widest_table(records: list[Record]) -> PaperBoard:
    """Return Table 10 at budget paper, which has the most columns, with values of ours in all of them."""
    table = load("table-10")
    cell = {record.seed or 0: Measurement(record.robust or 0, (record,)) for record in records}
    rows = [PaperRow(row, row.paper, dict.fromkeys(table.columns, cell)) for row in table.rows]
    return make_board(table, "paper", rows, {}, ["A note."])


def _claims() -> list[Board[ClaimRow]]:
    """Return the board of one claim that was tested at two budgets."""
    text = "Mean-Teacher with IKL and a weaker wMSE is better than labels alone"
    manifest = replace(load("table-10"), claims=(Claim(better="ikl", than="kl", column="clean", text=text),))
    outcome = Comparison(difference=-0.1, low=-0.12, high=-0.08, p=1e-9, seeds=(0, 1, 2), n=10_000, test="t")
    return claim_boards([make_board(manifest, budget, [], {0: outcome}, []) for budget in ("own", "mini")])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of four leaderboards, one with published rows, an unranked one, claims, and the paper's tables."""
    paper = make_seeds([0.31, 0.32, 0.33], id="paper", budget="paper", clean=0.6578)
    paper = [make_record(**{**vars(record), "id": f"paper{record.seed}"}) for record in paper]
    own = [
        *make_seeds([0.21, 0.23], clean=0.5),
        make_record(id="trades", method="TRADES", robust=0.2, clean=0.6),
        make_record(id="a/b?c#d%41", method=HOSTILE, robust=0.19, clean=0.4, warnings=[HOSTILE]),
        make_record(id="small", dataset="cifar10", budget="mini", training={"trainer": {"epochs": 3}}),
        make_record(id="pgd", attacks=["pgd-20"], eps=4 / 255, eps_text="4/255"),
        make_record(id="foreign", seed=None, dataset="digits", method="Theirs"),
    ]
    folder = tmp_path_factory.mktemp("site")
    records = [*own, *paper]
    for record in records:
        save(record, make_flags(record), folder / "records", () if record.seed is None else CURVES)
    tables = [load(f"table-{number:02d}") for number in (2, 3, 10, 11, 13)]
    boards: list[Board[Any]] = [
        *leaderboards(records, published=published_rows(tables[:2])),
        _widest_table(paper),
        *_claims(),
    ]
    return write_site(folder, records, boards, [], [], [*tables, load("figure-02")])


@pytest.fixture(scope="module")
def wide(page: Path) -> dict[str, Any]:
    """The results of all steps at 1,400 pixels, in the order of this file's tests."""
    steps = {
        "restored": f'return look("{BOARD}");',
        "sorting": f"""
            await visit("#leaderboards"); await visit("#{BOARD}");
            const steps = [look("{BOARD}")];
            for (const _ of [1, 2]) {{
              head("{BOARD}", "Clean (%)").click(); await turn(); steps.push(look("{BOARD}"));
            }}
            for (const _ of [1, 2]) {{ history.back(); await turn(); steps.push(look("{BOARD}")); }}
            return steps;""",
        "filtering": f"""
            await visit("#leaderboards"); await type("TRADES cifar100");
            const typed = {{ ...look("{BOARD}"), lines: $$("#{BOARD} .curves polyline").length }}; await type("");
            $("#budget").value = "mini"; $("#budget").dispatchEvent(new Event("change")); await turn();
            const budget = {{ ...look("{OTHER}"), others: rows("{BOARD}") }};
            await visit("#leaderboards"); await type("no such words");
            const empty = look("leaderboards"); $("#clear").click(); await turn();
            await type("pgd-20"); const opened = rows("leaderboards"); await type("");
            return {{ typed, budget, empty, cleared: look("{BOARD}"), opened }};""",
        "run": f"""
            await visit("#leaderboards"); $("#{BOARD} tbody a").click(); await turn();
            const first = {{ ...look("run"), lines: $$("#run polyline").length, text: $("#run").innerText,
              focus: document.activeElement.textContent }};
            $("#run ul a[href]").click(); await turn();
            const other = $("#run").innerText;
            history.back(); await turn(); history.back(); await turn();
            return {{ first, other, back: shown() }};""",
        "addresses": """
            await visit("#runs?sort=1&filter=cifar100&budget=own"); const runs = look("runs");
            await visit("#run/small"); const small = $("#run").textContent;
            await visit("#run/lost"); const lost = $("#run").textContent;
            await visit("#run/foreign"); const foreign = $("#run").innerText;
            await visit("#%"); const broken = [shown()];
            await visit("#data"); broken.push(shown());
            return { runs, small, lost, foreign, broken };""",
        "hostile": f"""
            await visit("#leaderboards"); $$("#{BOARD} tbody a").at(-1).click(); await turn();
            return {{ ...look("run"), title: document.title, heading: $("#run h2").textContent }};""",
        "comparing": """
            await visit("#runs"); $$("#runs tbody input").slice(0, 9).forEach(box => box.click());
            await new Promise(done => setTimeout(done, 50));
            const many = $$("#runs tbody input").filter(box => box.checked).length;
            await visit("#runs?compare=trades&compare=small");
            const drawn = { lines: $$("#compare polyline").length, charts: $$("#compare figure").length,
              colors: new Set($$("#compare .key path").map(line => line.getAttribute("stroke"))).size,
              boxes: $$("#runs tbody input").filter(box => box.checked).map(box => box.value),
              table: rows("compare") };
            const plot = $("#compare .plot"), box = plot.getBoundingClientRect();
            plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2 }));
            drawn.tip = $(".tip", plot).innerText;
            plot.dispatchEvent(new PointerEvent("pointerleave"));
            drawn.left = $$(".tip").filter(tip => tip.offsetParent).length;
            $("#compare button").click(); await turn();
            return { many, drawn, after: $("#compare").textContent, hash: location.hash };""",
        "tables": """
            await visit("#tables"); const folded = $$("#tables > details").map(box => box.open);
            $('.index a[href="#table-11"]').click(); await turn();
            return { folded, opened: $("#table-11").offsetParent !== null, links: $$(".index a").length };""",
        "claims": """
            await visit("#claims"); const all = rows("claims"), said = $("#claims .verdicts").innerText;
            await visit("#claims?budget=mini"); return { all, said, mini: rows("claims") };""",
        "curves": f'await visit("#leaderboards"); return $$("#{BOARD} .curves polyline").length;',
        "cut": "return await cutOff();",
    }
    return drive(page, steps, width=1400, address=f"#{BOARD}?sort=2&order=ascending&filter=cifar100")


def test_an_address_restores_sorting_and_filter(wide: dict[str, Any]) -> None:
    assert [row[2] for row in wide["restored"]["rows"]] == ["40.00", "50.00", "60.00"]


def test_headers_sort_and_back_undoes_it(wide: dict[str, Any]) -> None:
    first, down, up, again, before = ([row[2] for row in step["rows"]] for step in wide["sorting"])
    assert first == before == ["50.00", "60.00", "40.00"]
    assert down == again == ["60.00", "50.00", "40.00"]
    assert up == ["40.00", "50.00", "60.00"]
    assert [step["sorted"] for step in wide["sorting"]] == [[], ["descending"], ["ascending"], ["descending"], []]


def test_words_and_budgets_filter_and_an_empty_result_says_so_and_can_be_cleared(wide: dict[str, Any]) -> None:
    found = wide["filtering"]
    assert [row[1] for row in found["typed"]["rows"]] == ["TRADES"]
    assert found["typed"]["lines"] == 2, "curves of the row that is shown: test accuracy and loss"
    assert re.fullmatch(r"[1-9]\d* of \d+ rows", found["typed"]["count"])
    assert [row[3] for row in found["budget"]["rows"]] == ["25.00"]
    assert found["budget"]["others"] == []
    assert "budget=mini" in found["budget"]["hash"]
    assert (found["empty"]["nothing"], found["empty"]["rows"]) == (True, [])
    assert not found["cleared"]["nothing"]
    assert "filter" not in found["cleared"]["hash"]
    assert len(found["cleared"]["rows"]) == 3
    assert [row[1] for row in found["opened"]] == ["IKL-AT"], "a folded board with a match is opened"


def test_a_budget_keeps_the_claims_that_were_tested_at_it(wide: dict[str, Any]) -> None:
    found = wide["claims"]
    assert [row[-2] for row in found["all"]] == ["own", "mini"]
    assert [row[-2] for row in found["mini"]] == ["mini"]
    assert "Our own expectation. Here: -10.00 [-12.00, -8.00], 3 seeds, p < 0.001" in found["said"]


def test_a_method_opens_its_run_with_accuracies_curves_configuration_and_its_other_seeds(wide: dict[str, Any]) -> None:
    first = wide["run"]["first"]
    assert first["shown"] == ["run"]
    assert first["focus"] == "IKL-AT"
    assert first["lines"] == len(CURVES[0]) - 1
    assert ["Robust after all attacks", "21.00"] in [row[:2] for row in first["rows"]]
    assert "checkpoint_sha256" in first["text"]
    assert re.search(r"Seed\s+0", first["text"])
    assert re.search(r"Seed\s+1", wide["run"]["other"])
    assert wide["run"]["back"] == ["leaderboards"]


def test_addresses_open_runs_and_broken_ones_the_first_page(wide: dict[str, Any]) -> None:
    found = wide["addresses"]
    assert [row[1] for row in found["runs"]["rows"]] == ["25.00", "23.00", "21.00", "20.00", "19.00"]
    assert "trainer.epochs" in found["small"]
    assert "no record lost" in found["lost"]
    assert "No curves were saved" in found["foreign"]
    assert "trained elsewhere" in found["foreign"]
    assert found["broken"] == [["claims"], ["claims"]]


def test_a_hostile_record_opens_as_text(wide: dict[str, Any]) -> None:
    assert wide["hostile"]["shown"] == ["run"]
    assert wide["hostile"]["heading"] == HOSTILE
    assert wide["hostile"]["title"] != "pwned"


def test_selected_runs_are_compared_by_curves_and_by_what_differs(wide: dict[str, Any]) -> None:
    found = wide["comparing"]
    assert found["many"] == 6
    drawn, metrics = found["drawn"], len(CURVES[0]) - 1
    assert (drawn["charts"], drawn["lines"]) == (metrics, 2 * metrics)
    assert drawn["colors"] == 2, "each method has its color"
    assert drawn["tip"].split("\n") == ["Epoch 2", "20 TRADES, seed 0", "20 IKL-AT, seed 0"], "the pointer's epoch"
    assert drawn["left"] == 0
    assert sorted(drawn["boxes"]) == ["small", "trades"]
    table = {name: cells for name, *cells in drawn["table"]}
    assert table["Dataset"] == ["cifar100", "cifar10"]
    assert table["trainer.epochs"] == ["–", "3"]
    assert table["Robust after all attacks (%)"][0].startswith("20.00 [")
    assert "Architecture" not in table, "what is equal is left out"
    assert found["after"] == ""
    assert found["hash"] == "#runs"


def test_boards_draw_the_curves_of_their_rows(wide: dict[str, Any]) -> None:
    assert wide["curves"] == 3 * 2, "test accuracy and loss of three rows"


def test_tables_without_runs_are_folded_and_the_index_opens_them(wide: dict[str, Any]) -> None:
    assert wide["tables"] == {"folded": [True, False, False, False, False], "opened": True, "links": 5}


def test_no_column_is_cut_off_at_1400_pixels(wide: dict[str, Any]) -> None:
    assert wide["cut"] == []


def test_a_phone_shows_methods_and_robust_accuracy_first(page: Path) -> None:
    headers = f"""
        const visible = () => $$("#{BOARD} th").filter(head => head.offsetParent).map(head => head.textContent);
        await visit("#leaderboards"); const first = visible(), cut = await cutOff();
        await visit("#runs"); const about = getComputedStyle($("#runs td[data-about]"), "::after").content;
        await visit("#leaderboards"); $("#{BOARD} .columns input").click();
        return {{ first, cut, about, all: visible() }};"""
    found = drive(page, {"headers": headers}, width=390)["headers"]
    assert found["first"] == ["Rank", "Method", "Robust (%)"]
    assert "seed 0, cifar100, AutoAttack" in found["about"]
    assert {"Clean (%)", "95 % interval", "Seeds"} <= set(found["all"])
    assert [name for name in found["cut"] if name.endswith("null")] == [], "no page scrolls sideways"
    assert found["cut"] == []
