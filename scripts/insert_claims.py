"""Copy the table of claims into results/README.md, between two comments: ``python -m scripts.insert_claims``."""

import re
from pathlib import Path

from dkl.storage.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"
BLOCK = re.compile(r"(<!-- claims: make publish writes this table -->\n).*?(<!-- end of claims -->)", re.DOTALL)


def with_claims(page: str, board: str) -> str:
    """Return the Markdown ``page`` with the table of ``board``; the board's title and notes are left out."""
    table = "\n".join(line for line in board.splitlines() if line.startswith("|"))
    return BLOCK.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}" if table else f"{found[1]}{found[2]}", page)


def main() -> None:
    """Update the page in place."""
    page, board = RESULTS / "README.md", RESULTS / "reference" / "tables" / "claims.md"
    write_text(page, with_claims(page.read_text(), board.read_text()))


if __name__ == "__main__":
    main()
