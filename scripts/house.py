"""Print the size and shape of ``dkl/``, with the marks that keep it readable: ``python -m scripts.house``.

A reader pays for every file that a question opens, so besides lines and files this counts definitions that send a
reader elsewhere: public functions with one caller in another file, and private functions of at most eight lines that
are used once.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SHORT = 8
"""Lines of a function that might as well be read where it is used."""


@dataclass(frozen=True)
class Definition:
    """A function at module level or a method: ``file`` is relative to the repository."""

    name: str
    file: str
    lines: int
    top: bool


def definitions(file: str, tree: ast.Module) -> Iterator[Definition]:
    """Yield the functions of a module and the methods of its classes."""
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                lines = (member.end_lineno or member.lineno) - member.lineno + 1
                yield Definition(member.name, file, lines, top=member is node)


def uses(source: str) -> dict[str, int]:
    """Count the words of a module's code outside its imports, lists of public names, comments and docstrings."""
    tree = ast.parse(source)
    counts: dict[str, int] = {}
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if name:
            counts[name] = counts.get(name, 0) + 1
    return counts


def rows() -> dict[str, tuple[int, int]]:
    """The counts by name, each with its mark."""
    files = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "dkl").rglob("*.py"))}
    outside = "\n".join(path.read_text() for name in ("configs", "docs") for path in (ROOT / name).rglob("*.*"))
    lines = {name: text.count("\n") for name, text in files.items()}
    found = [one for name, text in files.items() for one in definitions(name, ast.parse(text))]
    used = {name: uses(text) for name, text in files.items()}
    callers = {one: [name for name, counts in used.items() if counts.get(one.name)] for one in found}
    public = [
        one
        for one in found
        if one.top
        and not one.name.startswith("_")
        and len(callers[one]) == 1
        and callers[one][0] != one.file
        and used[callers[one][0]][one.name] == 1
        and not re.search(rf"\b{one.name}\b", outside)
    ]
    private = [
        one for one in found if one.name.startswith("_") and one.lines <= SHORT and used[one.file].get(one.name, 0) == 1
    ]
    tests = sum(path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py"))
    return {
        "lines of dkl/": (sum(lines.values()), 20_500),
        "files of dkl/": (len(lines), 170),
        "median lines of a file, at least": (int(median(lines.values())), 110),
        "lines of the longest file": (max(lines.values()), 450),
        "files under 40 lines": (sum(count < 40 for count in lines.values()), 20),
        "public functions with one caller, in another file": (len(public), 50),
        f"private functions used once, of at most {SHORT} lines": (len(private), 30),
        "functions over 60 lines": (sum(one.lines > 60 for one in found), 0),
        "lines of tests/": (tests, 25_000),
    }


def main() -> None:
    """Print the table of marks."""
    for name, (count, mark) in rows().items():
        print(f"{name:58} {count:7,}   mark {mark:7,}")


if __name__ == "__main__":
    main()
