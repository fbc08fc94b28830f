"""MkDocs hook: publishes the pages and files outside docs/ that the documentation links to, and adapts the links.

A page of the repository is found at the same place in the site, but docs/ is the root, and README.md its first page.
Links to what is not published lead to the code host of the repository if ``GITHUB_REPOSITORY`` names it, as in GitHub's
workflows; otherwise only their text stays.
"""

import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

PUBLISHED = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "requirements.lock"),
    *("examples/*.py", "experiments/*.yaml", "tests/losses/test_theorem.py", "results/README.md"),
    *("results/benchmarks/*.*", "results/reliability/*.*"),
    *("results/reference/index.html", "results/reference/figures/*.*", "results/reference/tables/*.*"),
)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
"""A link or picture with a relative target: exclamation mark, text, path, anchor."""


def published() -> Iterable[str]:
    """The paths in the repository of all files that the site has in addition to those of docs/."""
    for pattern in PUBLISHED:
        yield from (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern)))


def place(path: str) -> str:
    """Where the site has the file at ``path`` in the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_files(files: Files, config: Any) -> Files:
    """Add the published files outside docs/."""
    for path in published():
        if not files.get_file_from_path(place(path)):
            files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links from the place in the repository to the place in the site, outside of code."""
    source = Path(page.file.abs_src_path).relative_to(ROOT)
    host = os.environ.get("GITHUB_REPOSITORY")

    def adapted(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(source.parent.as_posix(), target))
        text = LINK.sub(adapted, text)
        if files.get_file_from_path(place(path)):
            moved = posixpath.relpath(place(path), posixpath.dirname(place(source.as_posix())) or ".")
            return f"{picture}[{text}]({moved}{anchor or ''})"
        return f"[{text}](https://github.com/{host}/blob/main/{path})" if host else text

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.S | re.M)
    return "".join(part if part.startswith("```") else LINK.sub(adapted, part) for part in parts)
