"""Commands end by naming the next one, and sweeps by a table of their runs; the runs here are made up."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from dkl.cli import hydra_app, main
from dkl.cli.hydra_app import jobs, results_folder
from dkl.cli.main import evaluate_next, tables_next
from dkl.config.overrides import quoted, read_overrides, submitit_logs
from dkl.errors import UserError
from dkl.manifests import ManifestJob
from dkl.records import save
from tests.factories import make_flags, make_record
from tests.reporting.test_runs import make_run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)


def accuracy(cfg: DictConfig) -> float:
    """Return the made-up test accuracy of a run."""
    return 0.01 * float(cfg.loss.wmse_weight) + 0.001 * int(cfg.seed)


def train(cfg: DictConfig) -> Path:
    """Write a run as if it were trained; seed 2 fails."""
    if cfg.seed == 2:
        raise UserError("the disk is full")
    name = f"digits-ikl-s{cfg.seed}-{cfg.loss.wmse_weight:g}"
    return make_run(Path(cfg.paths.results), name, 2, {}, test_accuracy=accuracy(cfg))


def run(*arguments: str, job: Callable[[DictConfig], Path] = train) -> None:
    """Run ``dkl train`` with ``arguments``, a stand-in for training and no checks."""
    value = {}

    def remembered(cfg: DictConfig) -> Path:
        path = job(cfg)
        value[path] = accuracy(cfg)
        return path

    hydra_app.run("train", list(arguments), lambda cfg: None, remembered, evaluate_next, value.get)


def test_a_single_run_names_the_command_that_evaluates_it(capsys: pytest.CaptureFixture[str]) -> None:
    run("seed=1")
    run("seed=3", "paths.results=my results")
    assert capsys.readouterr().err.splitlines() == [
        "Next: dkl evaluate run=results/runs/digits-ikl-s1-20",
        """Next: dkl evaluate 'run='"'"'my results/runs/digits-ikl-s3-20'"'"'' 'paths.results=my results'""",
    ]


def test_a_sweep_ends_with_a_table_of_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("-m", "trainer.epochs=2", "loss.wmse_weight=12,20", "seed=0,2")
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["error: the disk is full"] * 2
    assert [line.split(maxsplit=5) for line in lines[2:7]] == [
        ["loss.wmse_weight", "seed", "epochs", "test", "(%)", lines[2].split(maxsplit=5)[5]],
        ["12", "0", "2/2", "12.00", "digits-ikl-s0-12"],
        ["12", "2", "failed:", "the", "disk", "is full"],
        ["20", "0", "2/2", "20.00", "digits-ikl-s0-20"],
        ["20", "2", "failed:", "the", "disk", "is full"],
    ]
    both = ",".join(f"results/runs/digits-ikl-s0-{weight}" for weight in (12, 20))
    assert lines[7:] == [f"Next: dkl evaluate -m run={both}"]
    assert not list((tmp_path / "results" / "runs").glob(".sweep-*"))


@pytest.mark.filterwarnings("ignore")  # importing optuna warns
def test_a_search_maximizes_by_default_and_prints_the_best_point(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sampler = ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0"]
    options = ["hydra/sweeper=optuna", *sampler, "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1"]
    run("-m", *options, "loss.wmse_weight=choice(12,20)")
    *_, best, following = capsys.readouterr().err.splitlines()
    assert best == "best of 2: loss.wmse_weight=20  value 0.2000  results/runs/digits-ikl-s0-20"
    assert following.startswith("Next: dkl evaluate -m run=")
    found = yaml.safe_load(Path("results/runs/optimization_results.yaml").read_text())
    assert found["best_params"] == {"loss.wmse_weight": 20}  # the sweeper's own answer


def test_an_evaluation_names_the_command_that_makes_its_tables(tmp_path: Path) -> None:
    own, smoke = (make_record(budget=budget) for budget in ("own", "smoke"))
    paths = [save(record, make_flags(record), tmp_path) for record in (own, smoke)]
    assert tables_next(paths[:1], ["run=x"]) == "dkl tables"
    assert tables_next(paths, ["paths.results=elsewhere"]) == "dkl tables results=elsewhere smoke=true"


NAMES = ["plain", "my results", "Größe-π", "it's", '"q"', "a,b=c:d", "back\\", "10", "1e3", "null", "[x]"]


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_command_can_be_pasted(name: str, tmp_path: Path) -> None:
    """Splitting a command as a shell does, and reading it as Hydra does, gives the names that it is about."""

    def values(command: str) -> dict[str, object]:
        _, _, *arguments = shlex.split(command)
        return {one.key_or_group: one.value() for one in read_overrides([text for text in arguments if "=" in text])}

    results, run = f"paths.results={quoted(name)}", Path(name) / "runs" / "digits"
    assert values(evaluate_next([run], [results])) == {"run": str(run), "paths.results": name}
    both = shlex.split(evaluate_next([run, run.with_name("other")], [results]))
    assert both[2] == "-m"
    assert [job[0] for job in jobs(both[3:4])] == [f"run={quoted(str(path))}" for path in (run, run.with_name("other"))]
    record = make_record(budget="own")
    path = save(record, make_flags(record), tmp_path)
    assert shlex.split(tables_next([path], [results])) == ["dkl", "tables", f"results={name}"]
    assert results_folder([results]) == Path(name)
    train, evaluate = (
        ManifestJob(name, name, 0, (f"label={quoted(name)}",), (("n=5",),)).commands(str(run)).splitlines()
    )
    assert values(train) == {"label": name}
    assert values(evaluate) == {"run": str(run), "n": 5}


@given(st.text(st.characters(exclude_categories=["C"])))
def test_hydra_reads_quoted_text_as_it_is(text: str) -> None:
    assert read_overrides([f"label={quoted(text)}"])[0].value() == text


def test_a_value_given_twice_is_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    run("-m", "seed=3,3", "loss.wmse_weight=12,20,12")
    *table, following = capsys.readouterr().err.splitlines()
    assert len(table) == 3
    assert following == "Next: dkl evaluate -m run=results/runs/digits-ikl-s3-12,results/runs/digits-ikl-s3-20"


def test_submitit_names_its_logs() -> None:
    assert submitit_logs(["hydra/launcher=joblib"], "results/runs") is None
    local = ["hydra/launcher=submitit_local"]
    assert submitit_logs(local, "results/runs") == "results/runs/.submitit/JOB/JOB_*_log.out and .err"
    assert submitit_logs([*local, "hydra.sweep.dir=s"], "results/runs") == "s/.submitit/JOB/JOB_*_log.out and .err"
    place = "hydra.launcher.submitit_folder=logs/%j"
    assert submitit_logs([*local, place], "results/runs") == "logs/JOB/JOB_*_log.out and .err"


@pytest.mark.parametrize(("device", "warned"), [("auto", True), ("cpu", False)])
def test_budget_paper_on_a_cpu_is_warned_about(
    device: str, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dkl.assembly.preflight", lambda cfg: None)
    monkeypatch.setattr("dkl.assembly.train", lambda cfg: make_run(Path("results"), "r", 1, {}, test_accuracy=0.5))
    main(["train", "data=cifar10", "recipe=trades", "budget=paper", f"trainer.device={device}"])
    assert ("budget=paper needs a GPU" in capsys.readouterr().err) == warned
