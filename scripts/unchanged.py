"""Show that a refactoring changed nothing: every row's configuration and hash, and every file of the reference results.

``python -m scripts.unchanged FILE`` writes a snapshot to FILE; if FILE exists, it compares the present code with it,
prints every difference and exits with 1 if there is one. The snapshot holds

- per experiment, budget and row: the run's hash, the row's identity, a digest of ``dkl train … --cfg job --resolve``
  and the options of each evaluation;
- per file that ``dkl tables --html`` makes of a copy of ``results/reference``: a digest, without time stamps.

Run it before a refactoring and after each step; the traces of ``tests/traces`` show that training and attacks are
unchanged bit for bit.
"""

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from omegaconf import OmegaConf

from dkl.cli.main import main as dkl
from dkl.config import compose_run
from dkl.manifests import ManifestJob, Request, load, names, plan

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
BUDGETS = (None, "smoke", "mini", "paper")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?")
"""A time stamp in a page or in the metadata of a figure."""


def snapshot() -> dict[str, str]:
    """Everything that a refactoring must keep, by name."""
    return {**_rows(), **_reference_files()}


def _rows() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names():
        if not load(name).runnable:
            continue
        for budget in BUDGETS:
            for job in plan(name, Request(budget=budget, seeds=(0,))):
                found[f"row {name} {budget or 'own'} {job.name}"] = _job(job)
    return found


def _job(job: ManifestJob) -> str:
    run = compose_run(job.train)
    configuration = _digest(OmegaConf.to_yaml(run.cfg, resolve=True))
    evaluations = " | ".join(" ".join(each) for each in job.evaluations)
    return f"run {run.config_hash}, row {run.row}, configuration {configuration}, evaluations: {evaluations}"


def _reference_files() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "reference"
        shutil.copytree(REFERENCE, results)
        with contextlib.redirect_stdout(io.StringIO()):
            dkl(["tables", "--html", f"results={results}"])
        files = sorted(path for path in results.rglob("*") if path.is_file() and path.suffix != ".lock")
        return {f"file {path.relative_to(results)}": _file(path, folder) for path in files}


def _file(path: Path, folder: str) -> str:
    content = path.read_bytes()
    if path.suffix in (".png", ".npz"):
        return _digest(content)
    return _digest(TIME.sub("TIME", content.decode().replace(folder, "")))


def _digest(content: str | bytes) -> str:
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def main() -> None:
    """Write a snapshot, or compare with one."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m scripts.unchanged FILE")
    path, now = Path(sys.argv[1]), snapshot()
    if not path.exists():
        path.write_text(json.dumps(now, indent=1))
        print(f"{path}: {len(now)} rows and files")
        return
    before = json.loads(path.read_text())
    different = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    for key in different:
        print(f"{key}\n  before: {before.get(key, 'absent')}\n  now:    {now.get(key, 'absent')}")
    print(f"{len(before)} rows and files before, {len(different)} differ")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
