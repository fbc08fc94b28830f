"""Every command in the documentation is valid, every Python block runs, and every relative link has a target."""

import json
import re
import shlex
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml
from omegaconf import DictConfig
from torch import nn

import dkl
from dkl.cli.hydra_app import compose_checked
from dkl.config import check
from dkl.config.overrides import expand_network
from dkl.manifests import load
from dkl.options import OPTIONS, parse_options
from dkl.reproduction.planning import parse
from dkl.threat import EVALUATED_NORMS, parse_attacks, parse_threat
from tests.docs.pages import PAGES, ROOT, anchors, blocks, commands, links, page_name
from tests.docs.test_frameworks import FRAMEWORKS

EXAMPLES = ROOT / "docs" / "extending.md"  # test_extending.py runs its commands and files
WITH_COMMANDS = [page for page in PAGES if commands(page) and page != EXAMPLES]
WITH_PYTHON = [page for page in PAGES if any(block.kind == "python" for block in blocks(page)) and page != EXAMPLES]


def check_evaluation(cfg: DictConfig) -> None:
    parse_attacks(cfg.attacks or "standard")
    if cfg.eps:
        parse_threat(cfg.norm or "linf", cfg.eps, norms=EVALUATED_NORMS)


def check_dkl(words: list[str]) -> None:
    """Compose what ``dkl`` with ``words`` would run, without running it."""
    command, *arguments = words
    if "--help" in arguments:
        return
    overrides = [word for word in arguments if not word.startswith("-")]
    if command == "reproduce":
        options = parse(overrides)
        rows = {row.name for row in load(options.name).rows}
        assert options.request.row is None or options.request.row in rows, f"no row {options.request.row}"
    elif command in ("tables", "export", "verify"):
        keys = {option.key for option in OPTIONS[command]}
        given = {text.partition("=")[0] for text in arguments if "=" in text}
        assert given <= keys, given - keys
        assert all(text == "--html" or text.endswith("records/NAME.json") for text in arguments if "=" not in text)
    elif command == "runs":
        parse_options("runs", [text for text in arguments if "=" in text])
        texts = [text for text in arguments if "=" not in text]
        assert not texts or (texts[0] == "compare" and len(texts) > 2)
    else:
        compose_checked(command, expand_network(overrides), {"train": check, "evaluate": check_evaluation}[command])


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_name)
def test_commands_are_valid(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+%?):", (ROOT / "Makefile").read_text(), re.M))
    for line in commands(page):
        words = shlex.split(line)
        if words[0] == "dkl":
            check_dkl(words[1:])
        elif words[0] in ("torchrun", "srun"):
            words = words[: words.index("||")] if "||" in words else words
            check_dkl(words[words.index("dkl") + 1 :])
        elif words[0] == "make":
            assert re.sub(r"-\d+$", "-%", words[1]) in targets, line
        else:
            assert words[0] == "bash", line
            assert (ROOT / words[1]).is_file(), line
            if "sweeps" in words[1]:
                compose_checked("train", ["hydra/sweeper=optuna", *words[2:]], check)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_relative_links_have_targets(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", WITH_PYTHON, ids=page_name)
def test_python_blocks_run(page: Path) -> None:
    model = nn.Linear(5, 100)
    before = model.weight.detach().clone()
    scope = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [(torch.rand(4, 5), torch.randint(100, (4,))) for _ in range(2)],
        "attack": lambda model, x, y: x + 0.1,
    }
    for block in blocks(page):
        if block.kind == "python" and block not in FRAMEWORKS.values():
            exec(block.text, dict(scope))
    assert (page.name == "README.md") != torch.equal(before, model.weight), "only the README trains the model"


def test_readme_is_short_and_shows_the_loss_first() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 150
    kinds = [block.kind for block in blocks(readme)]
    assert kinds[0] == "python"
    assert {"make quickstart", "make test"} <= set(commands(readme))


def test_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    readme = (ROOT / "README.md").read_text()
    measured = (ROOT / "results" / "benchmarks" / "README.md").read_text()
    for pattern, line in {
        r"\[([\d,]+) times as fast": "- pairwise / ikl, time at 512×1000: {} (",
        r"in a ([\d,]+)th of the memory": "- pairwise / ikl, peak memory at 512×1000: {} (",
        r"0 of ([\d,]+) flags differ": "| {} | 0 |",
    }.items():
        assert line.format(re.search(pattern, readme)[1]) in measured
    theorem = (ROOT / "tests" / "losses" / "test_theorem.py").read_text()
    assert f"atol={re.search(r'to (1e-[0-9]+) in double', readme)[1]})" in theorem
    certificate = (ROOT / "results" / "benchmarks" / "autoattack.md").read_text().splitlines()
    ratios = [float(line.split(" | ")[-2]) for line in certificate if "| 100 / 5000 |" in line]
    assert max(ratios) == float(re.search(r"up to \[([\d.]+) times as fast", readme)[1])


def test_accuracies_of_the_readme_are_those_of_the_records() -> None:
    records = [json.loads(path.read_text()) for path in (ROOT / "results/reference/records").glob("*.json")]
    shown = r"^\| `experiment=(\S+) row=(\S+)` \|.*?\| ([^|]+) \| (\d+) min \|"
    rows = re.findall(shown, (ROOT / "README.md").read_text(), re.M)
    assert len(rows) >= 6
    for experiment, name, accuracy, minutes in rows:
        label = next(row.label for row in load(experiment).rows if row.name == name)
        attacks = ["pgd-20"] if "PGD-20" in accuracy else []
        dataset = next(text for text in ("cifar100", "cifar10", "camvid") if text in experiment)
        runs = [r for r in records if (r["method"], r["dataset"], r["attacks"]) == (label, dataset, attacks)]
        runs = [r for r in runs if not attacks or (r["n"], r["eps_text"]) == (10000, "8/255")]
        values = [[r["segmented"]["miou"] if r["segmented"] else r["clean"] for r in runs]]
        values += [[r["robust"] for r in runs]] if attacks else []
        assert re.findall(r"([\d.]+) %", accuracy) == [f"{100 * fmean(kind):.1f}" for kind in values], name
        assert minutes == f"{fmean(r['training_seconds'] for r in runs) / 60:.0f}", name


def test_every_page_of_docs_is_in_the_readme() -> None:
    linked = {link.partition("#")[0] for link in links(ROOT / "README.md")}
    assert {page_name(page) for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_page_on_configuration_names_every_group() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.M))
    assert {folder.name for folder in (ROOT / "configs").iterdir() if folder.is_dir()} - {"sweep"} <= named


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dkl.__version__
    assert citation["preferred-citation"]["title"] in (ROOT / "README.md").read_text()
