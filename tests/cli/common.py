"""The program in this process: what it prints, and how it ends."""

from dataclasses import dataclass

import pytest

from dkl.cli import main


@dataclass(frozen=True)
class Ended:
    """Exit status, and what was printed to each stream."""

    status: object
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """``dkl`` with ``arguments``; an error is whatever it says last, to either stream or as its exit."""
    capsys.readouterr()
    status: object = 0
    try:
        main(list(arguments))
    except SystemExit as ended:
        status = ended.code
    out, err = capsys.readouterr()
    return Ended(status, out, err)
