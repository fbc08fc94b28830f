"""A saved record."""

from pathlib import Path

import pytest

from dkl import records
from tests.factories import make_flags
from tests.records.common import Make


@pytest.fixture
def saved(make_record: Make, tmp_path: Path) -> Path:
    record = make_record()
    return records.save(record, make_flags(record), tmp_path)
