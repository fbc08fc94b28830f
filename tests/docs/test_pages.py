"""Every command in the documentation is valid, every Python block runs, and every relative link has a target."""

import re
import shlex
from pathlib import Path

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
    assert len(readme.read_text().splitlines()) <= 160
    kinds = [block.kind for block in blocks(readme)]
    assert kinds[0] == "python"
    assert {"make quickstart", "make test"} <= set(commands(readme))


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
