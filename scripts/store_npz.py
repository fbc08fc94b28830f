"""Rewrite an ``.npz`` file uncompressed, so that training can read its arrays in place.

``python -m scripts.store_npz IN OUT`` needs disk space for all arrays, but little memory, and verifies their checksums.
"""

import argparse
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from dkl.storage.files import write_atomically

CHUNK = 1 << 24  # bytes copied at a time


def store(source: Path, target: Path) -> None:
    """Copy every member of ``source`` to ``target`` uncompressed; ``target`` appears only when it is complete."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(source) as packed, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as stored:
            for name in packed.namelist():
                # Members may exceed 4 GB, and their size is not known before they are written.
                with packed.open(name) as content, stored.open(name, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(content, copy, CHUNK)

    write_atomically(target, write)


def main() -> None:
    """Rewrite the file given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.store_npz", description="Rewrite an .npz uncompressed.")
    parser.add_argument("source", type=Path, metavar="IN", help="the compressed .npz")
    parser.add_argument("target", type=Path, metavar="OUT", help="the uncompressed .npz to write")
    options = parser.parse_args()
    try:
        store(options.source, options.target)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        sys.exit(f"{options.source} could not be rewritten: {error}; download it again")
    print(f"{options.target}: {options.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
