"""Sweep files and scripts describe runs that work; a search maximizes the objective and skips failed trials."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dkl.assembly import preflight
from dkl.cli.hydra_app import jobs
from dkl.config import compose_config
from dkl.models import create_model
from dkl.training import objective
from tests.cli.common import call
from tests.training.common import TINY

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted((CHECKOUT / "configs" / "sweep").glob("*.yaml"))
SCRIPTS = sorted((CHECKOUT / "scripts" / "sweeps").glob("*.sh"))
KEYS = {"project", "program", "method", "metric", "parameters", "command", "run_cap"}
"""Keys of wandb's sweep files that ours use."""


def extremes(parameter: dict[str, Any]) -> tuple[Any, Any]:
    """The smallest and the largest value that a sweep may try."""
    if "values" in parameter:
        return parameter["values"][0], parameter["values"][-1]
    assert parameter["distribution"] in ("uniform", "log_uniform_values")
    assert 0 < parameter["min"] < parameter["max"]
    return float(parameter["min"]), float(parameter["max"])


def expanded(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The command line that wandb's agent makes for a run."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    line: list[str] = []
    for word in create_sweep_command(list(sweep["command"])):
        line += macros[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_runs_of_a_wandb_sweep_pass_the_checks(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER", str(tmp_path))
    sweep = yaml.safe_load(path.read_text())
    assert set(sweep) <= KEYS
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] == "maximize"
    for end in (0, 1):
        values = {name: extremes(parameter)[end] for name, parameter in sweep["parameters"].items()}
        env, program, command, *overrides = expanded(sweep, values)
        assert (env, program, command) == ("/usr/bin/env", "dkl", "train")
        cfg = compose_config("train", overrides)
        assert cfg.logger._target_ == "dkl.loggers.WandbLogger"
        for name, value in values.items():
            node, _, key = name.rpartition(".")
            assert (cfg[node] if node else cfg)[key] == value  # a leaf, and nothing of the recipe overrides it
        measured = {"test_accuracy"} | ({"average_test_accuracy"} if cfg.averaging else set())
        measured |= {"best_robust_accuracy"} if cfg.selection.holdout and cfg.selection.every else set()
        assert sweep["metric"]["name"] in measured
        if "teacher" in cfg.task:  # any weights that fit will do
            assert cfg.task.teacher.run == str(tmp_path)
            teacher = create_model(cfg.task.teacher.name, cfg.data.num_classes, cfg.data.shape[0])
            torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
            cfg.task.teacher.run, cfg.task.teacher.checkpoint = None, str(tmp_path / "teacher.pt")
        preflight(cfg)


def test_there_are_sweeps_and_scripts() -> None:
    assert FILES
    assert {path.stem for path in SCRIPTS} == {"grid", "search", "slurm"}


def run_script(name: str, folder: Path, *arguments: str, then: str = "", **environment: str) -> tuple[int, str]:
    """Run a script in ``folder`` with a stand-in for ``dkl``, which writes down its arguments and does ``then``."""
    program = folder / "dkl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n{then}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment
    script = [str(CHECKOUT / "scripts" / "sweeps" / name), *arguments]
    ended = subprocess.run(["bash", *script], cwd=folder, env=env, stdout=subprocess.PIPE, text=True, timeout=60)
    return ended.returncode, ended.stdout


def arguments_of(name: str, folder: Path, *arguments: str, **environment: str) -> list[str]:
    """The arguments that a script gives to ``dkl``."""
    assert run_script(name, folder, *arguments, **environment)[0] == 0
    return (folder / "arguments").read_text().splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_default_runs_of_a_script_pass_the_checks(script: Path, tmp_path: Path) -> None:
    command, multirun, *overrides = arguments_of(script.name, tmp_path)
    assert (command, multirun) == ("train", "-m")
    every = jobs(overrides)
    assert len(every) > 1
    for one in (every[0], every[-1]):
        preflight(compose_config("train", one))


def test_an_interval_is_checked_at_its_ends() -> None:
    line = [
        "loss.wmse_weight=tag(log, interval(4.5, 40.5))",
        "seed=1",
        "task.prior_temperature=choice(1,2)",
        "hydra.x=1",
    ]
    assert jobs(line) == [
        [f"loss.wmse_weight={weight}", "seed=1", f"task.prior_temperature={temperature}"]
        for weight in (4.5, 40.5)
        for temperature in (1, 2)
    ]


def test_a_glob_is_every_choice_that_it_matches() -> None:
    names = ("ikl", "ikl_kd", "ikl_ssl")
    assert jobs(["loss=glob(ikl*,exclude=*_pixels)", "seed=1"]) == [[f"loss={name}", "seed=1"] for name in names]


def test_an_interval_without_a_sweeper_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-m"], []):
        ended = call(capsys, "train", *arguments, "loss.wmse_weight=interval(1,2)")
        assert ended.status == 2
        assert "-m hydra/sweeper=optuna" in ended.err
    ended = call(capsys, "train", "-m", "hydra/sweeper=optuna", "loss.wmse_weight=interval(-1,2)")
    assert (ended.status, ended.out) == (2, "")
    assert "wmse_weight=-1" in ended.err


def test_the_objective_is_held_out_robustness_else_test_accuracy(tmp_path: Path) -> None:
    assert objective(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text('{"test_accuracy": 0.9}\n{"epoch": 2, "test_accuracy": 0.5}\n')
    assert objective(tmp_path) == 0.5
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"test_accuracy": 0.7, "robust_accuracy": 0.1, "best_robust_accuracy": 0.25}\n')
    assert objective(tmp_path) == 0.25


SMALL = (*TINY, "trainer.epochs=1", "attack.steps=1")


def test_the_script_of_a_search_prints_the_best_point_and_ends_as_the_search(tmp_path: Path) -> None:
    best = "mkdir -p found; echo 'best_value: 0.5' > found/optimization_results.yaml"
    assert run_script("search.sh", tmp_path, then=f"{best}; exit 2", FOLDER="found") == (2, "best_value: 0.5\n")
    assert run_script("search.sh", tmp_path, then="exit 2", FOLDER="found") == (2, "")  # not that of an earlier search


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where results are written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # importing optuna warns
def test_a_search_skips_failed_trials_and_continues_after_an_interruption(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    small = [override for override in SMALL if not override.startswith("data.train_size=")]
    line = [*small, "data.train_size=64,5000", "loss.wmse_weight=tag(log, interval(4.0, 40.0))"]  # digits are fewer
    arguments = arguments_of("search.sh", elsewhere, *line, TRIALS="3", FOLDER="found")
    search = call(capsys, *arguments)
    assert search.status == 2, search.err
    assert "data.train_size" in search.err
    trained = search.err.count(": done, ")
    assert 0 < trained < 3
    best = yaml.safe_load((elsewhere / "found" / "optimization_results.yaml").read_text())
    assert best["best_params"]["data.train_size"] == 64
    folders = [path for path in (elsewhere / "results" / "runs").iterdir() if (path / "metrics.jsonl").exists()]
    shown = next(text for text in search.err.splitlines() if text.startswith("best of 3: "))
    assert f"loss.wmse_weight={best['best_params']['loss.wmse_weight']}" in shown
    assert best["best_value"] == max(value for folder in folders if (value := objective(folder)) is not None)
    assert call(capsys, *arguments).err.count("already trained") == trained


def test_a_grid_runs_in_parallel(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    ended = call(capsys, *arguments_of("grid.sh", elsewhere, *SMALL, "seed=0,1", JOBS="2"))
    assert ended.status == 0, ended.err
    folders = sorted(path.name for path in (elsewhere / "results" / "runs").iterdir() if path.is_dir())
    assert [name[:-8] for name in folders] == [f"digits-small_cnn-ikl-s{seed}-" for seed in (0, 1)]
    # Each job ran in a process of its own, and the table has both.
    table = ended.err[ended.err.index("seed  epochs") :].splitlines()
    assert [line.split()[-1] for line in table[1:3]] == folders
    assert table[3] == f"Next: dkl evaluate -m run={','.join(f'results/runs/{name}' for name in folders)}"
