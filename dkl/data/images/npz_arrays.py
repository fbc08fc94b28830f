"""Arrays of an uncompressed ``.npz`` file, mapped into memory in place, so that the file may be larger than memory.

An uncompressed member of a zip file is its ``.npy`` file byte by byte. The array therefore starts right after the zip's
local header and the ``.npy`` header, and can be mapped from there; only the pages that are read enter memory.
"""

import math
import mmap
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dkl.errors import UserError

LOCAL_HEADER = 30  # bytes before the member's name; the last four are the lengths of name and extra field


@dataclass(frozen=True)
class ArrayInFile:
    """An array of ``dtype`` and ``shape`` in row-major order, at byte ``offset`` of the file ``path``."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def map(self) -> NDArray[Any]:
        """Map the array read-only, for random access."""
        with self.path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):  # without it the system reads far beyond each image
            content.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(content, self.dtype, math.prod(self.shape), self.offset).reshape(self.shape)

    def chunks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Read a one-dimensional array in order, ``rows`` elements at a time."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, self.shape[0], rows):
                yield np.fromfile(file, self.dtype, min(rows, self.shape[0] - start))


def _locate(path: Path, file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayInFile:
    """Find the array of the zip member ``info``. Raises ValueError if it cannot be mapped."""
    if info.compress_type != zipfile.ZIP_STORED:
        rewritten = path.with_name(f"{path.stem}_stored.npz")
        raise UserError(
            f"{path} is compressed, so its images cannot be read in place: rewrite it uncompressed with "
            f"python -m scripts.store_npz {path} {rewritten}"
        )
    with archive.open(info) as member:  # checks the local header
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{info.filename} has .npy version {version}, only 1.0 and 2.0 are supported")
        shape, fortran, dtype = readers[version](member)
        header = member.tell()
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError(f"{info.filename} holds objects or is in column-major order")
    if info.file_size != header + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} is truncated")
    # The local header may have another extra field than the central directory, so its length is read from the file.
    file.seek(info.header_offset + LOCAL_HEADER - 4)
    name, extra = struct.unpack("<HH", file.read(4))
    return ArrayInFile(path, dtype, shape, info.header_offset + LOCAL_HEADER + name + extra + header)


def locate_arrays(path: Path, names: Sequence[str]) -> list[ArrayInFile]:
    """Find the arrays ``names`` in an ``.npz`` file. Raises UserError if one is missing or cannot be mapped."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [name for name in names if name not in members]:
                raise UserError(f"{path} has no array named {' and '.join(missing)}; it has {list(members)}")
            return [_locate(path, file, archive, members[name]) for name in names]
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as an .npz of plain arrays: {error}; download or write it again"
        ) from None
