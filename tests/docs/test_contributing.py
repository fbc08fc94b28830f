"""CONTRIBUTING.md, "Where is …": the files and names that it sends a reader to exist, and are fewer than eight."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SECTION = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where is …")[2].partition("\n## ")[0]
QUESTIONS = re.findall(r"^\| ([^|]+\?) \| (.+) \|$", SECTION, re.M)


def defined(file: Path) -> set[str]:
    """Functions, classes, their methods as ``Class.method``, and constants of a file."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
        if isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(("question", "answer"), QUESTIONS, ids=[question for question, _ in QUESTIONS])
def test_the_files_of_an_answer_exist_and_define_its_names(question: str, answer: str) -> None:
    files = re.findall(r"`(dkl/[\w/]+\.py)` \(([^)]+)\)", answer)
    assert 1 < len(files) < 8
    for file, names in files:
        wanted = set(re.findall(r"`([\w.]+)`", names))
        assert wanted
        assert wanted <= defined(ROOT / file)


def test_there_are_six_questions() -> None:
    assert len(QUESTIONS) == 6
