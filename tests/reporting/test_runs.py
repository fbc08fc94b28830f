"""``dkl runs`` reads the files of runs: it lists, names states and differences, compares, and draws."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dkl.errors import UserError
from dkl.records import save
from dkl.reporting.figures.style import BLUE, VERMILLION
from dkl.reporting.runs import comparison, draw_curves, find_run, listing, read_runs
from dkl.storage.files import locked
from dkl.threat import AUTOATTACK
from tests.cli.common import call
from tests.factories import make_flags
from tests.reporting.factories import make_record

PLAIN = {
    "data": {"name": "digits", "eps": "0.1", "augment": {"flip": False}},
    "model": {"_target_": "dkl.models.create_model", "name": "small_cnn"},
    "loss": {"_target_": "dkl.losses.IKL", "wmse_weight": 20.0},
    "trainer": {"epochs": 2, "threads": 1},
    "paths": {"results": "results"},
    "logger": {},
    "recipe_name": "quick",
    "seed": 0,
}


def make_run(results: Path, name: str, epochs: int, changes: dict[str, Any], **metrics: float) -> Path:
    """Write a run of ``epochs`` trained epochs, whose accuracies rise to ``metrics``."""
    content = {key: value | changes.get(key, {}) if isinstance(value, dict) else value for key, value in PLAIN.items()}
    content |= {key: value for key, value in changes.items() if not isinstance(value, dict)}
    folder = results / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    rows = [
        {"epoch": e, "loss": 2 / e, **{k: v * e / epochs for k, v in metrics.items()}} for e in range(1, epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / ".lock").touch()
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a folder with a finished run, which is evaluated, an interrupted one, and one of another loss."""
    done = make_run(tmp_path, "digits-small_cnn-ikl-s0-aaaa0000", 2, {}, test_accuracy=0.75)
    other = {"loss": {"wmse_weight": 12.5}, "seed": 1, "trainer": {"threads": 4}, "paths": {"results": "elsewhere"}}
    make_run(tmp_path, "digits-small_cnn-ikl-s1-bbbb0000", 1, other, test_accuracy=0.5, robust_accuracy=0.25)
    loss = {"loss": {"_target_": "dkl.losses.KL", "weight": 6.0}, "recipe_name": "trades"}
    make_run(tmp_path, "digits-small_cnn-kl-s0-cccc0000", 0, loss)
    # The last one is of the same file, evaluated as anyone's checkpoint, perhaps as another network.
    evaluations: list[tuple[list[str], float, str, dict[str, Any]]] = [
        (["pgd-20"], 0.4, "2025-01-01", {}),
        (list(AUTOATTACK), 0.3, "2025-02-01", {}),
        (list(AUTOATTACK), 0.1, "2025-03-01", {"seed": None, "budget": "own", "partial": True}),
    ]
    for attacks, robust, created, more in evaluations:
        about = {"id": created, "created": created, "checkpoint": f"{done.name}/checkpoint.pt", **more}
        record = make_record(attacks=attacks, robust=robust, **about)
        save(record, make_flags(record), tmp_path / "records")
    return tmp_path


def test_a_list_has_epochs_accuracies_state_and_differences_and_a_comparison_every_setting(results: Path) -> None:
    runs, problems = read_runs(results)
    assert not problems
    with locked(runs[2].folder / ".lock"):
        table = listing(runs)
    assert [row[1:] for row in table.rows] == [
        ("2/2", "75.00", "30.00 (AutoAttack)", "done", "loss.wmse_weight=20, recipe=quick"),
        ("1/2", "50.00", "25.00 (held out)", "interrupted", "loss.wmse_weight=12.5, recipe=quick"),
        ("0/2", "", "", "running", "recipe=trades"),  # its loss is in its name, whose arguments others do not have
    ]
    assert [row[0] for row in table.rows] == [run.name for run in runs]
    assert {row[0]: row[1:] for row in comparison(runs[:2]).rows} == {
        "loss.wmse_weight": ("20", "12.5"),
        "trainer.threads": ("1", "4"),
        "seed": ("0", "1"),
        "state": ("done", "interrupted"),
        "epochs": ("2/2", "1/2"),
        "training loss": ("1.0000", "2.0000"),
        "test (%)": ("75.00", "50.00"),
        "clean (%), evaluated": ("75.00", "–"),
        "robust (%)": ("30.00 (AutoAttack)", "25.00 (held out)"),
    }
    assert comparison(runs[1:]).rows[0][1:] == ("IKL", "KL")


def test_a_run_is_found_by_folder_name_or_part(results: Path) -> None:
    runs, _ = read_runs(results)
    for name in (str(runs[0].folder), f"{runs[0].folder}/", runs[0].name, "aaaa", "ikl-s0"):
        assert find_run(runs, name) is runs[0]
    with pytest.raises(UserError, match="part of 2 names"):
        find_run(runs, "ikl")
    with pytest.raises(UserError, match="no run nope"):
        find_run(runs, "nope")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("filter=ikl", ["aaaa0000", "bbbb0000"]),
        ("filter=seed=0,loss=IKL", ["aaaa0000"]),
        ("sort=test", ["aaaa0000", "bbbb0000", "cccc0000"]),
        ("sort=robust limit=1", ["aaaa0000"]),
        ("limit=2", ["aaaa0000", "bbbb0000"]),
    ],
)
def test_the_list_is_filtered_sorted_and_cut(
    options: str, found: list[str], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = call(capsys, "runs", f"results={results}", *options.split())
    assert [line.split()[0][-8:] for line in listed.out.splitlines()[1:]] == found
    assert "filter=nope" in call(capsys, "runs", f"results={results}", "filter=nope").err


def test_the_command_lists_compares_and_draws(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "runs" / "torn").mkdir()
    (results / "runs" / "torn" / "config.yaml").write_text("trainer: [")
    listed = call(capsys, "runs", f"results={results}")
    assert listed.out.split()[:9] == ["Run", "Epochs", "Test", "(%)", "Robust", "(%)", "State", "Differs", "in"]
    assert len(listed.out.splitlines()) == 4
    assert "torn/config.yaml cannot be read" in listed.err
    compared = call(capsys, "runs", "compare", "aaaa", "bbbb", "cccc", f"results={results}")
    assert "loss.wmse_weight" in compared.out
    drawn = sorted(path.name for path in (results / "figures").iterdir())
    assert drawn == [f"compare-aaaa0000-bbbb0000-cccc0000.{kind}" for kind in ("png", "svg")]
    assert f"drawn: {results / 'figures' / drawn[0]}" in compared.err
    assert "has one run twice" in call(capsys, "runs", "compare", "aaaa", "aaaa0000", f"results={results}").err


def test_a_picture_of_runs_has_a_panel_per_metric_the_colors_of_methods_and_dashes_within(results: Path) -> None:
    runs, _ = read_runs(results)
    make_run(results, "digits-small_cnn-kl-s0-cccc0000", 2, {}, test_accuracy=0.5)
    runs = [*runs[:2], read_runs(results)[0][2]]
    draw_curves(runs, results / "figures")
    text = next((results / "figures").glob("*.svg")).read_text()
    assert all(f"<!-- {panel} -->" in text for panel in ("test accuracy (%)", "robust accuracy, held out (%)", "loss"))
    assert all(f"stroke: {color.lower()}" in text for color in (BLUE, VERMILLION))
    assert "stroke-dasharray" in text, "two runs of one method"
    assert not draw_curves([replace(runs[0], metrics=[])], results / "figures"), "nothing was measured"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare aaaa", "is not complete"),
        ("aaaa", "is not complete"),
        ("nope=1", "no option 'nope'"),
        ("sort=nope", "choose one of name, new, test, robust"),
        ("results=empty", "has no run"),
    ],
)
def test_mistakes_are_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "runs", *words.split())
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
