"""Interrupts training, evaluation, reproduction and two processes at random moments, and compares the end with a run
that was not interrupted.

    python -m tests.interruptions.rounds FOLDER SEED COUNT

interrupts each of them ``COUNT`` times and prints what happened as JSON.
"""

import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dkl import checkpoint, records
from dkl.assembly import train
from dkl.cli import main
from dkl.config import compose_config, run_folder
from dkl.evaluation import evaluate
from tests.interruptions.forks import Ended, Work, run
from tests.training.common import comparable

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PER_RUN = 6
"""Interruptions of one run; then it may end."""

TRAINING = (
    *("data=digits", "data.train_size=160", "data.test_size=80", "trainer.batch_size=16", "trainer.epochs=4"),
    *("trainer.threads=1", "trainer.device=cpu", "loss=ikl", "averaging=ema"),
)
SELECTION = ("selection.holdout=32", "selection.every=2", "selection.attack=pgd-3")
PAIR = ("loss=gkl", "averaging=none", "trainer.devices=2")
EVALUATION = ("attacks=[pgd-10,apgd-ce,cw-10]", "batch_size=8", "n=48", "eps=0.03", "threads=1", "device=cpu")
REPRODUCTION = ("experiment=quickstart", "budget=smoke", "row=IKL-AT", "trainer.device=cpu", "trainer.threads=1")


@dataclass(frozen=True)
class Case:
    """Work that writes to a results folder, how many processes share it, and what it leaves there, without times."""

    work: Callable[[Path], object]
    left: Callable[[Path], Any]
    processes: int = 1

    def works(self, results: Path) -> list[Work]:
        """The work of each process, into ``results``."""
        return [lambda: self.work(results)] * self.processes


def trained(results: Path) -> Any:
    """The files of the only run: the state, the metrics without speeds and the best weights."""
    (folder,) = (path for path in (results / "runs").iterdir() if path.is_dir())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["images_per_second"]
    best = checkpoint.read(folder / "best.pt") if (folder / "best.pt").exists() else {}
    return _plain([comparable(folder), rows, best, sorted(path.name for path in folder.iterdir())])


def evaluated(results: Path) -> Any:
    """Weights, accuracies and flags of every record, and the names of all files that are left."""
    found: dict[str, Any] = {}
    for record in records.load_all(results / "records")[0]:
        flags = records.load_flags(results / "records" / f"{record.id}.json")
        found[record.id] = [record.checkpoint_sha256, record.clean, record.robust, _plain(flags)]
    return [found, sorted(path.name for path in (results / "runs").rglob("*") if path.is_file())]


def _plain(value: Any) -> Any:
    """``value`` with tensors and arrays as bytes, which compare as a whole."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (str(value.dtype), value.tolist()) if hasattr(value, "tolist") else value


def _into(cfg: DictConfig, results: Path) -> DictConfig:
    """A copy of ``cfg`` with this results folder: composing takes longer than the work."""
    cfg = cfg.copy()
    cfg.paths.results = str(results)
    return cfg


def cases(folder: Path) -> dict[str, Case]:
    """All cases; the run that is evaluated is trained first."""
    alone, pair = (compose_config("train", [*TRAINING, *more]) for more in (SELECTION, PAIR))
    run([lambda: train(_into(alone, folder))], folder)
    evaluation = compose_config("evaluate", [*EVALUATION, f"run={run_folder(_into(alone, folder))}"])
    return {
        "train": Case(lambda results: train(_into(alone, results)), trained),
        "evaluate": Case(lambda results: evaluate(_into(evaluation, results)), evaluated),
        "reproduce": Case(lambda results: main(["reproduce", *REPRODUCTION, f"paths.results={results}"]), evaluated),
        "two processes": Case(lambda results: train(_into(pair, results)), trained, processes=2),
    }


def interrupt(case: Case, folder: Path, count: int, chance: random.Random) -> dict[str, Any]:
    """Interrupt ``case`` ``count`` times at uniformly random moments; return the figures."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    ended = run(case.works(whole), whole)
    assert [one.status for one in ended] == [0] * case.processes, ended
    expected, duration = case.left(whole), ended[0].seconds
    interruptions = dict.fromkeys((signum.name for signum in SIGNALS), 0)
    runs, equal, unclean = 0, 0, []
    while sum(interruptions.values()) < count:
        results = folder / f"run{runs}"
        results.mkdir()
        for _ in range(PER_RUN):
            signum = chance.choice(SIGNALS)
            # One of several processes may die alone; Ctrl-C and schedulers reach all.
            only = chance.randrange(case.processes) if signum == signal.SIGKILL and chance.random() < 0.5 else None
            ended = run(case.works(results), results, chance.uniform(0.01, duration), signum, only)
            if all(one.status == 0 for one in ended):
                break
            interruptions[signum.name] += 1
            unclean += [_describe(one, signum) for one in _to_judge(ended, only) if not one.is_clean(signum)]
            if sum(interruptions.values()) == count:
                break
        ended = run(case.works(results), results)
        equal += [one.status for one in ended] == [0] * case.processes and case.left(results) == expected
        runs += 1
        shutil.rmtree(results)
    return {"interruptions": interruptions, "runs": runs, "bit_identical": equal, "unclean": unclean}


def _to_judge(ended: list[Ended], only: int | None) -> list[Ended]:
    """The processes that got the signal and had not ended before; of a group the first one prints."""
    got = ended[:1] if only is None else [ended[only]]
    return [one for one in got if one.status != 0]


def _describe(ended: Ended, signum: int) -> str:
    return f"signal {signum}: status {ended.status}, printed {ended.err[-2000:]!r}"


def rounds(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Interrupt every case ``count`` times."""
    chance, started = random.Random(seed), time.monotonic()
    found = {}
    for name, case in cases(folder).items():
        found[name] = interrupt(case, folder / name, count, chance)
        print(f"{name}: {found[name]}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return {"seed": seed, "seconds": round(time.monotonic() - started, 1), "cases": found}


if __name__ == "__main__":
    print(json.dumps(rounds(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
