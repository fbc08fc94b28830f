"""Run the program in this process."""

from dataclasses import dataclass

import pytest

from dkl.cli import main


@dataclass(frozen=True)
class Ended:
    """Exit status, and the text on each stream."""

    status: object
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run ``dkl`` with ``arguments``."""
    capsys.readouterr()
    status: object = 0
    try:
        main(list(arguments))
    except SystemExit as ended:
        status = ended.code
    out, err = capsys.readouterr()
    return Ended(status, out, err)
