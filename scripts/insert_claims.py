"""Copy the table of claims into results/README.md, between two comments: ``python -m scripts.insert_claims``."""

import re
from pathlib import Path

from dkl.storage.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"
BLOCK = re.compile(r"(<!-- claims: make publish writes this part -->\n).*?(<!-- end of claims -->)", re.DOTALL)
SUMMARY = re.compile(r"- .*: \d+ (agrees?|disagrees?|not visible|one seed)")
INTRODUCTION = """\
Small runs on a CPU, compared by paired tests over seeds and test images. **They neither confirm nor contradict a value
of the paper.** Rows that name a table test a claim of the paper; if the table has another dataset or attack, the claim
names it after “paper:”. Rows with “–” test that the setup works, or what one would expect. *Here* is the difference in
percentage points with its 95 % interval, after the paper's; *p, Holm* is corrected for all claims together. A claim
*agrees* if the interval is on the claimed side of 0, *disagrees* if it is on the other side, and is *not visible at
this size* if it contains 0. Two methods claimed to be the same *agree* if the whole interval is within the points that
the claim allows."""
NOTES = "The [same table with its notes](reference/tables/claims.md) names hardware, versions and total cost."


FOREST = "![Differences of all claims with their 95 % intervals](reference/figures/forest-claims.svg)"


def with_claims(page: str, board: str) -> str:
    """Return the Markdown ``page`` with the summary of ``board``, its figure, and its table cut into its groups."""
    rows = [line for line in board.splitlines() if line.startswith("|")]
    summary = [line for line in board.splitlines() if SUMMARY.match(line)]
    groups: dict[str, list[str]] = {}
    for row in rows[2:]:
        group, _, rest = row.removeprefix("| ").partition(" | ")
        groups.setdefault(group.strip(), []).append(f"| {rest}")
    head = [f"| {row.removeprefix('| ').partition(' | ')[2]}" for row in rows[:2]]
    tables = [f"### {name}\n\n" + "\n".join([*head, *own]) for name, own in groups.items()]
    text = "\n\n".join(["\n".join(summary), FOREST, INTRODUCTION, *tables, NOTES])
    return BLOCK.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}" if rows else found[1] + found[2], page)


def main() -> None:
    """Update the page in place."""
    page, board = RESULTS / "README.md", RESULTS / "reference" / "tables" / "claims.md"
    write_text(page, with_claims(page.read_text(), board.read_text() if board.exists() else ""))


if __name__ == "__main__":
    main()
