"""Rewrite an ``.npz`` file with its arrays uncompressed, so that training can read them in place.

``python -m scripts.store_npz IN OUT`` needs disk space for all arrays but no memory, and verifies their checksums.
"""

import argparse
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from dkl.files import write_atomically

CHUNK = 1 << 24


def store(source: Path, target: Path) -> None:
    """Copy every member of ``source`` to ``target``, which appears only when it is complete."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(source) as packed, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as stored:
            for name in packed.namelist():
                with packed.open(name) as content, stored.open(name, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(content, copy, CHUNK)

    write_atomically(target, write)


def main() -> None:
    """Rewrite the named file."""
    parser = argparse.ArgumentParser(prog="python -m scripts.store_npz", description="Store an .npz uncompressed.")
    parser.add_argument("source", type=Path, metavar="IN", help="the compressed .npz")
    parser.add_argument("target", type=Path, metavar="OUT", help="where the uncompressed one goes")
    options = parser.parse_args()
    try:
        store(options.source, options.target)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        sys.exit(f"{options.source} could not be rewritten: {error}")
    print(f"{options.target}: {options.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
