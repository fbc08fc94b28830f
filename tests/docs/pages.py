"""The Markdown pages of the project: their code blocks, commands and links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "results" / "README.md",
]


class Block(NamedTuple):
    """A fenced code block: its language, its text and the line before it."""

    kind: str
    text: str
    title: str


def page_name(page: Path) -> str:
    """The path of a page from the root: the identifier of its tests."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """All fenced code blocks of ``page``."""
    found = re.findall(r"(?:^([^\n]*)\n\n)?^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)
    return [Block(kind, text, title) for title, kind, text in found]


def commands(page: Path) -> list[str]:
    """The lines of all bash blocks of ``page``, without comments."""
    lines = [
        line.split("#")[0].strip() for kind, text, _ in blocks(page) if kind == "bash" for line in text.splitlines()
    ]
    return [line for line in lines if line]


def anchors(page: Path) -> set[str]:
    """The anchors that a code host gives to the headings of ``page``."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Targets of the relative links and pictures of ``page``."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", link)]
