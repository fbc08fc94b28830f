"""Gives an environment what a wheel requires, and nothing else, as links to the files of this environment.

    python scripts/link_requirements.py WHEEL SITE_PACKAGES [EXTRA ...]

A requirement that is not declared is therefore missing there, as after ``pip install``, but nothing is downloaded or
unpacked. The versions are those of this environment; one that the wheel does not allow is an error.
"""

import sys
from collections.abc import Iterator, Sequence
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement


def requirements_of_wheel(wheel: Path) -> list[str]:
    """Return the lines ``Requires-Dist`` of ``wheel``."""
    with ZipFile(wheel) as content:
        name = next(name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(content.read(name).decode()).get_all("Requires-Dist") or []


def required(lines: Sequence[str], extras: Sequence[str]) -> Iterator[Distribution]:
    """Yield every installed distribution that ``lines`` require with ``extras``, directly or through another.

    Raises SystemExit on a version that is not allowed.
    """
    waiting, seen = [(text, tuple(extras)) for text in lines], set()
    while waiting:
        text, of_extras = waiting.pop()
        one = Requirement(text)
        wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *of_extras))
        key = (one.name.lower(), tuple(sorted(one.extras)))
        if not wanted or key in seen:
            continue
        seen.add(key)
        found = distribution(one.name)
        if not one.specifier.contains(found.version, prereleases=True):
            raise SystemExit(f"the wheel requires {text}, but {found.version} is installed")
        yield found
        waiting += [(line, tuple(one.extras)) for line in found.requires or []]


def link(found: Distribution, target: Path) -> None:
    """Link the files of ``found`` into the folder ``target``; scripts outside of site-packages are left out."""
    for file in found.files or []:
        place = target / str(file)
        if ".." not in file.parts and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(Path(str(file.locate())).resolve())


if __name__ == "__main__":
    for each in required(requirements_of_wheel(Path(sys.argv[1])), sys.argv[3:]):
        link(each, Path(sys.argv[2]))
