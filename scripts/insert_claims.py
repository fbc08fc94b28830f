"""Copy the table of claims into results/README.md, between two comments: ``python -m scripts.insert_claims``."""

import re
from pathlib import Path

from dkl.storage.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"
BLOCK = re.compile(r"(<!-- claims: make publish writes this part -->\n).*?(<!-- end of claims -->)", re.DOTALL)
INTRODUCTION = "What small runs on a CPU show of the paper's claims, by paired tests over seeds and test images:"
NOTES = "The [same table with its notes](reference/tables/claims.md) names hardware, versions and total cost."


def with_claims(page: str, board: str) -> str:
    """Return the Markdown ``page`` with the table of ``board``, without its title and notes; nothing if it is empty."""
    table = "\n".join(line for line in board.splitlines() if line.startswith("|"))
    text = f"\n{INTRODUCTION}\n\n{table}\n\n{NOTES}\n\n" if table else ""
    return BLOCK.sub(lambda found: f"{found[1]}{text}{found[2]}", page)


def main() -> None:
    """Update the page in place."""
    page, board = RESULTS / "README.md", RESULTS / "reference" / "tables" / "claims.md"
    write_text(page, with_claims(page.read_text(), board.read_text() if board.exists() else ""))


if __name__ == "__main__":
    main()
