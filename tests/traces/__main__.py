"""Writes ``expected.json``, which ``test_traces.py`` compares with: ``python -m tests.traces [FILE]``.

Run it only if behavior is meant to change (a loss, the order of operations, random draws, the cells of a table), and
say why in the commit. A change that moves or renames code must leave the file as it is; if a configuration key is
renamed, edit the overrides in ``cases.py``. The file names the torch version and the CPU that made it. On other
machines the test compares losses with a tolerance and skips the rest.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.traces import cases, trace
from tests.traces.test_traces import EXPECTED


def main() -> None:
    """Run all cases and write their traces."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else EXPECTED
    with tempfile.TemporaryDirectory() as folder:
        runs = trace.Runs(Path(folder))
        content = {
            "environment": trace.environment(),
            "training": {name: runs.training(name) for name in cases.TRAINING},
            "flags": {name: runs.flags(name) for name in cases.EVALUATIONS},
            "tables": trace.tables(),
        }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
