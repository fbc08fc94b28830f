"""The results page in headless Chromium, opened from a file: sorting, filters, runs, the back button and links."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dkl.reporting import leaderboards
from dkl.reporting.site import write_site
from tests.reporting.factories import make_record, make_seeds
from tests.reporting.site.test_site import CURVES, HOSTILE, make_site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

PROBE = """
const rows = place => [...document.querySelectorAll(`#${CSS.escape(place)} tbody tr`)].filter(row => row.offsetParent)
  .map(row => [...row.cells].map(cell => cell.textContent));
const shown = () => [...document.querySelectorAll(".page")].filter(page => page.offsetParent).map(page => page.id);
const turn = () => new Promise(done => addEventListener("hashchange", () => setTimeout(done), { once: true }));
const head = (place, text) => [...document.querySelectorAll(`#${CSS.escape(place)} th button`)]
  .find(button => button.textContent === text);
const look = place => ({ shown: shown(), rows: rows(place), hash: location.hash, count: document.getElementById("count")
  .textContent, sorted: [...document.querySelectorAll(`#${CSS.escape(place)} [aria-sort]`)].map(h => h.ariaSort) });
// Until a page is loaded, a new address replaces the old one in the history.
const loaded = new Promise(done => addEventListener("load", () => setTimeout(done)));
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(`policy: ${event.violatedDirective}`));
const report = found => { document.body.dataset.found = JSON.stringify({ found, errors, title: document.title }); };
"""


def drive(page: Path, script: str, address: str = "") -> Any:
    """Run ``script``, the body of an async function, in the page at ``address``. Returns its result; errors fail."""
    copy = page.with_name("driven.html")
    before, after = page.read_text(encoding="utf-8").split("<body>", 1)
    watch = f"<script>{PROBE}</script>"
    act = f"<script>loaded.then(async () => {{ {script} }}).then(report, error => report(String(error)))</script>"
    copy.write_text(f"{before}<body>{watch}{after.replace('</body>', f'{act}</body>')}", encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={page.parent / 'profile'}",
    ]
    command += ["--virtual-time-budget=5000", "--dump-dom", f"{copy.as_uri()}{address}"]
    run = subprocess.run(command, capture_output=True, timeout=120, check=True, text=True)
    answer = re.search(r'data-found="([^"]*)"', run.stdout)
    assert answer, run.stdout[-2000:]
    reply = json.loads(unescape(answer[1]))
    assert reply["errors"] == []
    return reply["found"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of two leaderboards: three rows on CIFAR-100, one of them with two seeds, and one on CIFAR-10."""
    records = [
        *make_seeds([0.21, 0.23], clean=0.5),
        make_record(id="trades", method="TRADES", robust=0.2, clean=0.6),
        make_record(id="a/b?c#d%41", method=HOSTILE, robust=0.19, clean=0.4, warnings=[HOSTILE]),
        make_record(id="small", dataset="cifar10", budget="mini", training={"trainer": {"epochs": 3}}),
    ]
    folder = tmp_path_factory.mktemp("site")
    return make_site(folder, records)


BOARD = "cifar100-Linf-eps8_255-own"


def test_headers_sort_and_back_undoes_it(page: Path) -> None:
    found = drive(
        page,
        f"""
        const steps = [look("{BOARD}")];
        for (const _ of [1, 2]) {{
          head("{BOARD}", "Clean (%)").click(); await turn(); steps.push(look("{BOARD}"));
        }}
        for (const _ of [1, 2]) {{ history.back(); await turn(); steps.push(look("{BOARD}")); }}
        return steps;
        """,
    )
    first, down, up, again, before = ([row[2] for row in step["rows"]] for step in found)
    assert first == before == ["50.00 ± 0.00", "60.00", "40.00"]
    assert down == again == ["60.00", "50.00 ± 0.00", "40.00"]
    assert up == ["40.00", "50.00 ± 0.00", "60.00"]
    assert [step["sorted"] for step in found] == [[], ["descending"], ["ascending"], ["descending"], []]


def test_typing_filters_rows_and_boards_and_choosing_a_budget_too(page: Path) -> None:
    typed, chosen = drive(
        page,
        """
        const box = document.getElementById("filter"), budget = document.getElementById("budget"), steps = [];
        box.value = "TRADES cifar100"; box.dispatchEvent(new Event("input")); await turn();
        steps.push(look("leaderboards"));
        box.value = ""; box.dispatchEvent(new Event("input")); await turn();
        budget.value = "mini"; budget.dispatchEvent(new Event("change")); await turn();
        steps.push(look("leaderboards"));
        return steps;
        """,
    )
    assert [row[1] for row in typed["rows"]] == ["TRADES"]
    assert typed["count"] == "1 of 4 rows"
    assert [row[3] for row in chosen["rows"]] == ["25.00"]
    assert "budget=mini" in chosen["hash"]


def test_a_method_opens_its_run_with_accuracies_curves_configuration_and_its_other_seeds(page: Path) -> None:
    found = drive(
        page,
        f"""
        document.querySelector("#{BOARD} tbody a").click(); await turn();
        const first = {{ ...look("run"), lines: document.querySelectorAll("#run polyline").length,
          text: document.getElementById("run").innerText, focus: document.activeElement.textContent }};
        document.querySelector("#run ul a").click(); await turn();
        const other = document.getElementById("run").innerText;
        history.back(); await turn(); history.back(); await turn();
        return {{ first, other, back: shown() }};
        """,
    )
    first = found["first"]
    assert first["shown"] == ["run"]
    assert first["focus"] == "IKL-AT"
    assert first["lines"] == len(CURVES[0]) - 1
    assert ["Robust after all attacks", "21.00"] in [row[:2] for row in first["rows"]]
    assert "checkpoint_sha256" in first["text"]
    assert re.search(r"Seed\s+0", first["text"])
    assert re.search(r"Seed\s+1", found["other"])
    assert found["back"] == ["leaderboards"]


def test_addresses_restore_the_view(page: Path) -> None:
    here = drive(page, f'return look("{BOARD}");', f"#{BOARD}?sort=2&order=ascending&filter=cifar100")
    assert [row[2] for row in here["rows"]] == ["40.00", "50.00 ± 0.00", "60.00"]
    runs = drive(page, 'return look("runs");', "#runs?sort=6&filter=cifar100&budget=own")
    assert [row[6] for row in runs["rows"]] == ["23.00", "21.00", "20.00", "19.00"]
    run = 'return { ...look("run"), text: document.getElementById("run").textContent };'
    assert "trainer.epochs" in drive(page, run, "#run/small")["text"]
    assert "no record lost" in drive(page, run, "#run/lost")["text"]


def test_broken_addresses_show_the_leaderboards(page: Path) -> None:
    for address in ("#%", "#data", f"#{BOARD}?sort=99&order=up&budget=huge&filter=%"):
        assert drive(page, "return shown();", address) == ["leaderboards"]


def test_a_hostile_record_opens_as_text(page: Path) -> None:
    found = drive(
        page,
        f"""
        [...document.querySelectorAll("#{BOARD} tbody a")].at(-1).click(); await turn();
        return {{ ...look("run"), title: document.title, heading: document.querySelector("#run h2").textContent }};
        """,
    )
    assert found["shown"] == ["run"]
    assert found["heading"] == HOSTILE
    assert found["title"] != "pwned"


def test_a_run_without_curves_or_configuration_opens(tmp_path: Path) -> None:
    foreign = [make_record(id="foreign", seed=None)]
    path = write_site(tmp_path, foreign, leaderboards(foreign), [], [], [])
    text = drive(path, 'return document.getElementById("run").innerText;', "#run/foreign")
    assert "No curves were saved" in text
    assert "trained elsewhere" in text
