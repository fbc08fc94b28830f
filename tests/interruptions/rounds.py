"""Interrupts training, evaluation, reproduction and two processes at random moments, and compares the end with a run
that was not interrupted.

    python -m tests.interruptions.rounds FOLDER SEED COUNT [CASE ...]

interrupts each of them, or each ``CASE``, ``COUNT`` times. After every run it prints the figures so far as one line of
JSON.
"""

import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dkl import records
from dkl.assembly import train
from dkl.cli import main
from dkl.config import compose_config, run_folder
from dkl.evaluation import evaluate
from dkl.storage import checkpoint
from dkl.training import fit
from tests.interruptions.forks import PATIENCE, Ended, Work, run
from tests.training.common import comparable

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PER_RUN = 6
"""Interruptions of one run; then it may end."""

ALONE = 15.0
"""Seconds after which processes are killed whose partner was killed, as torchrun does."""

LATEST = 0.8
"""Latest moment of an interruption, as a share of the time of a whole run: later, it has often ended."""

TRAINING = (
    *("data=digits", "data.train_size=128", "data.test_size=40", "trainer.batch_size=32", "trainer.epochs=3"),
    *("trainer.threads=1", "trainer.device=cpu", "loss=ikl", "averaging=ema", "attack.steps=2"),
)
SELECTION = ("selection.holdout=32", "selection.every=2", "selection.attack=pgd-2")
PAIR = ("loss=gkl", "averaging=none", "trainer.devices=2")
EVALUATION = ("attacks=[pgd-5,apgd-ce,cw-5]", "batch_size=8", "n=32", "eps=0.03", "threads=1", "device=cpu")
REPRODUCTION = ("experiment=quickstart", "budget=smoke", "row=IKL-AT", "trainer.device=cpu", "trainer.threads=1")


@dataclass(frozen=True)
class Case:
    """Work that writes to a results folder, how many processes share it, and what it leaves there, without times.

    With ``own_folders`` every process has a results folder of its own, as on machines that share none.
    """

    work: Callable[[Path], object]
    left: Callable[[Path], Any]
    processes: int = 1
    own_folders: bool = False

    def home(self, results: Path, rank: int = 0) -> Path:
        """The results folder of process ``rank``."""
        return results / f"machine{rank}" if self.own_folders else results

    def works(self, results: Path) -> list[Work]:
        """The work of each process, into ``results``."""
        return [partial(self.work, self.home(results, rank)) for rank in range(self.processes)]

    def found(self, results: Path) -> Any:
        """What the first process has left."""
        return self.left(self.home(results))


def trained(results: Path) -> Any:
    """The files of the only run: the state, the metrics without speeds and the best weights."""
    (folder,) = (path for path in (results / "runs").iterdir() if path.is_dir())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["epoch_seconds"], row["images_per_second"]
    best = checkpoint.read(folder / "best.pt") if (folder / "best.pt").exists() else {}
    best.pop("config", None)  # it names the folder
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


def cases(folder: Path, names: Sequence[str] = ()) -> dict[str, Case]:
    """The cases of these ``names``, or all; the run that is evaluated is trained first."""
    alone, pair = (compose_config("train", [*TRAINING, *more]) for more in (SELECTION, PAIR))
    train(_into(alone, folder))
    evaluation = compose_config("evaluate", [*EVALUATION, f"run={run_folder(_into(alone, folder))}"])
    found = {
        "train": Case(lambda results: train(_into(alone, results)), trained),
        "evaluate": Case(lambda results: evaluate(_into(evaluation, results)), evaluated),
        "reproduce": Case(lambda results: main(["reproduce", *REPRODUCTION, f"paths.results={results}"]), evaluated),
        "two processes": Case(lambda results: train(_into(pair, results)), trained, processes=2),
        "two machines": Case(lambda results: train(_into(pair, results)), trained, processes=2, own_folders=True),
    }
    return {name: case for name, case in found.items() if not names or name in names}


@dataclass
class Tally:
    """What has happened to the runs of one case."""

    interruptions: dict[str, int] = field(default_factory=lambda: dict.fromkeys((one.name for one in SIGNALS), 0))
    runs: int = 0
    bit_identical: int = 0
    unclean: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Interruptions of all kinds."""
        return sum(self.interruptions.values())


def whole(case: Case, folder: Path) -> tuple[Any, float]:
    """What ``case`` leaves without interruptions, and its seconds."""
    folder.mkdir()
    if case.processes == 1:  # here rather than in a fork, so that the forks find every module imported
        started = time.monotonic()
        case.work(folder)
        return case.found(folder), time.monotonic() - started
    ended = run(case.works(folder), folder)
    assert [one.status for one in ended] == [0] * case.processes, ended
    return case.found(folder), ended[0].seconds


def interrupt(
    case: Case, results: Path, tally: Tally, count: int, expected: Any, seconds: float, chance: random.Random
) -> float:
    """Interrupt one run at random moments of its ``seconds`` until ``count`` are tallied; let it end, and compare.

    Returns the seconds of a run: fewer if it ended before the signal, as on a machine that has become less busy.
    """
    results.mkdir()
    for _ in range(min(PER_RUN, count - tally.total)):
        signum = chance.choice(SIGNALS)
        # One of several processes may die alone; Ctrl-C and schedulers reach all.
        only = chance.randrange(case.processes) if signum == signal.SIGKILL and chance.random() < 0.5 else None
        # Then the others may wait for one that never joined the group, until their launcher stops them.
        patience = PATIENCE if only is None else ALONE
        ended = run(case.works(results), results, chance.uniform(0.01, LATEST * seconds), signum, only, patience)
        if all(one.status == 0 for one in ended):
            seconds = min(seconds, ended[0].seconds)
            break
        tally.interruptions[signum.name] += 1
        tally.unclean += [_describe(one, signum) for one in _to_judge(ended, only) if not one.is_clean(signum)]
    ended = run(case.works(results), results)
    if any(one.status for one in ended):
        tally.different += [_describe(one, 0) for one in ended if one.status]
    elif case.found(results) != expected:
        tally.different.append(f"run {tally.runs} left other files")
    else:
        tally.bit_identical += 1
    tally.runs += 1
    shutil.rmtree(results)
    return seconds


def _to_judge(ended: list[Ended], only: int | None) -> list[Ended]:
    """The processes that got the signal and had not ended before; of a group the first one prints."""
    got = ended[:1] if only is None else [ended[only]]
    return [one for one in got if one.status != 0]


def _describe(ended: Ended, signum: int) -> str:
    return f"signal {signum}: status {ended.status}, printed {ended.err[-2000:]!r}"


def rounds(folder: Path, seed: int, count: int, names: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Interrupt every case ``count`` times, one run of each after another; yield the figures after each run."""
    chance, started = random.Random(seed), time.monotonic()
    fit.SAVE_EVERY_SECONDS = 0.0  # so that kills arrive between and within the states saved by the clock
    with redirect_stdout(sys.stderr):
        chosen = cases(folder, names)
        wholes = {name: whole(case, folder / f"{name} whole") for name, case in chosen.items()}
    tallies = {name: Tally() for name in chosen}
    while any(tally.total < count for tally in tallies.values()):
        for name, case in chosen.items():
            if tallies[name].total < count:
                expected, seconds = wholes[name]
                results = folder / f"{name} {tallies[name].runs}"
                wholes[name] = expected, interrupt(case, results, tallies[name], count, expected, seconds, chance)
                figures = {name: asdict(tally) for name, tally in tallies.items()}
                yield {"seed": seed, "seconds": round(time.monotonic() - started, 1), "cases": figures}


if __name__ == "__main__":
    for figures in rounds(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]):
        print(json.dumps(figures), flush=True)
