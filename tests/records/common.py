"""Saved records to change and to refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dkl import records
from dkl.errors import UserError
from dkl.records import Record

Make = Callable[..., Record]


def change(path: Path, **fields: Any) -> Path:
    """Overwrite fields in a saved record's JSON, without its checksums, which would also find the change."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checksums": {}} | fields))
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        records.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)
