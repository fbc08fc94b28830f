"""The documentation's site: its navigation has every page, and links are adapted to it. `make docs` checks the rest."""

import re
from types import SimpleNamespace

import pytest

from tests.docs.pages import ROOT


def test_the_navigation_has_every_page() -> None:
    named = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= named
    assert all((ROOT / name).is_file() for name in named - pages - {"index.md"})


@pytest.mark.parametrize(
    ("page", "text", "host", "expected"),
    [
        ("docs/losses.md", "[a](../results/README.md#x)", "", "[a](results/README.md#x)"),
        ("docs/losses.md", "[a](sharing.md)", "", "[a](sharing.md)"),
        ("README.md", "[a](docs/losses.md)", "", "[a](losses.md)"),
        ("results/README.md", "[a](../docs/losses.md)", "", "[a](../losses.md)"),
        ("README.md", "[`a`](dkl)", "", "`a`"),
        ("README.md", "[`a`](dkl)", "me/dkl", "[`a`](https://github.com/me/dkl/blob/main/dkl)"),
        ("README.md", "```\n[a](docs/losses.md)\n```", "", "```\n[a](docs/losses.md)\n```"),
    ],
)
def test_links_lead_to_the_place_in_the_site(
    page: str, text: str, host: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mkdocs")
    from scripts import docs_site

    monkeypatch.setenv("GITHUB_REPOSITORY", host)
    places = {"losses.md", "sharing.md", *map(docs_site.place, docs_site.published())}
    files = SimpleNamespace(get_file_from_path=lambda path: path in places)
    opened = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(ROOT / page)))
    assert docs_site.on_page_markdown(text, opened, None, files) == expected
