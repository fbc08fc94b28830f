"""Atomic files, which are complete or absent at any moment, checksums of archives, and locks between processes."""

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dkl.errors import BusyError, FullDiskError, UserError, first_line, shortened

LARGEST_TEXT, LARGEST_FLAGS, LARGEST_GROWTH = 16 * 2**20, 64 * 2**20, 64 * 2**20
"""Limits for files of others, in bytes: of JSON and CSV; of a record's flags when they are unpacked; and of what any
other archive unpacks to beyond its own size. torch and numpy hardly compress; ImageNet's flags have 300 kB."""

LOCK_TIMEOUT = 1.0
"""Seconds before a lock counts as busy: long enough for another process's ``is_locked``, which holds it briefly."""


def check_writable(folder: Path) -> None:
    """Raise UserError if ``folder``, which may not exist yet, cannot hold files. Nothing is created."""
    for place in (folder, *folder.parents):
        try:
            mode = place.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            if not place.is_symlink():
                continue  # its parent decides
            raise UserError(f"{place} links to nothing: remove the link, or choose another folder") from None
        except OSError as error:
            raise UserError(f"{shortened(folder)} cannot be a folder: {error.strerror}; choose another one") from None
        if not stat.S_ISDIR(mode):
            raise UserError(f"{place} is a file, but a folder is needed there: move it away, or choose another folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{place} cannot be written to: change its permissions, or choose another folder")
        return


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` on a temporary file beside ``path``, sync that file to disk and rename it to ``path``.

    Raises FullDiskError if the file does not fit; what was at ``path`` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process number alone may repeat on another machine that writes to the same folder.
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save hides the system's error in a RuntimeError
        if (why := _full(error, part, write)) is None:
            raise
        kept = "; the file of before is kept" if path.exists() else ""
        raise FullDiskError(
            f"{path} cannot be written: {why}{kept}. Free some space, then give the same command again"
        ) from None
    finally:
        part.unlink(missing_ok=True)


class _Counter(io.RawIOBase):
    """Counts the bytes that are written, and keeps none."""

    def __init__(self) -> None:
        self.size = self.place = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.size)[whence]
        return self.place

    def write(self, data: Any) -> int:
        count = memoryview(data).nbytes
        self.place += count
        self.size = max(self.size, self.place)
        return count


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system: the disk is full, the user's quota is, or the file is larger than allowed."""


def _full(error: BaseException, part: Path, write: Callable[[BinaryIO], object]) -> str | None:
    """Why what ``write`` writes does not fit beside ``part``, or None if ``error`` has another reason."""
    counter, free = _Counter(), shutil.disk_usage(part.parent).free
    own = [one.errno for one in (error, error.__context__, error.__cause__) if isinstance(one, OSError)]
    if not set(own) & set(FULL):
        return None
    write(cast(BinaryIO, counter))
    needed = f"{counter.size / 1e6:,.1f} MB are needed"
    if errno.ENOSPC in own:
        return f"the disk is full, {needed} and {free / 1e6:,.1f} MB are free"
    return f"your quota or the limit of a file's size is exceeded, {needed}"


# FileLock uses the operating system's locks (flock on Unix, msvcrt on Windows), which end with a killed process. Since
# Linux 2.6.12 they also hold between the clients of an NFS server. SoftFileLock, a file that merely exists, would
# survive a kill and block the resumed run; filelock falls back to it only on file systems without locks.


@contextmanager
def locked(path: Path, busy: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path``. A process that ends in any way releases it.

    If another process holds it, wait for that process if ``wait``; else raise BusyError with the message ``busy``.
    """
    from filelock import FileLock, Timeout  # here, because attacks write files without it

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait else LOCK_TIMEOUT)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"{busy}; wait for it, or stop it first") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file ``path``."""
    if not path.exists():
        return False
    try:
        import fcntl
    except ImportError:  # Windows has no shared locks
        return _is_taken(path)
    # Asking is a shared lock for a moment: several processes that ask do not see each other, and locked() outwaits it.
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without such locks
            return _is_taken(path)
    return False


def _is_taken(path: Path) -> bool:
    """Whether the lock ``path`` cannot be taken at this moment."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``rows`` as CSV, atomically: one column per key, in order of appearance; missing values are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, content.getvalue())


def read_text(path: Path) -> str:
    """Read UTF-8. Raises ValueError if it is something else, or larger than what this package writes."""
    if path.is_dir():
        raise ValueError("it is a folder")
    if (size := path.stat().st_size) > LARGEST_TEXT:
        raise ValueError(f"it has {size:,} bytes, more than {LARGEST_TEXT:,}")
    return path.read_bytes().decode()


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hash of a file's bytes, in hex; ``algorithm`` is a name of ``hashlib``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


ARCHIVE_ERRORS = (
    *(EOFError, LookupError, MemoryError, NotImplementedError, OSError, RuntimeError, ValueError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
"""Errors of Python on zip archives with changed bytes."""


def damage(path: Path, most: int | None = None) -> str | None:
    """What is wrong with the zip archive ``path``, in words; None if every entry has the content of its checksum.

    Checkpoints of torch and numpy's ``.npz`` are zip archives, which store the CRC-32 of each entry. torch does not
    compare it when it reads, and numpy only if it reads an entry to its end. Nothing is unpacked if the sizes in its
    directory add up to more than ``most`` bytes, by default somewhat more than the file has.
    """
    try:
        most = path.stat().st_size + LARGEST_GROWTH if most is None else most
        with zipfile.ZipFile(path) as archive:
            if (size := sum(info.file_size for info in archive.infolist())) > most:
                return f"it unpacks to {size:,} bytes, more than {most:,}"
            entry = archive.testzip()
            # torch reads no bytes of an entry that is marked as a folder, and returns whatever was in memory.
            folder = next((info.filename for info in archive.infolist() if info.external_attr & 0x10), None)
    except ARCHIVE_ERRORS as error:
        return first_line(error) or type(error).__name__
    if entry:
        return f"{entry} does not match its checksum"
    return f"{folder} is marked as a folder" if folder else None


LOCAL_HEADER = 30
"""Bytes before the name of a zip's entry; the last four are the lengths of the name and of the extra field."""


def data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the data of an entry begins in the zip ``file``."""
    # The local header may have another extra field than the central directory, so its length is read from the file.
    file.seek(info.header_offset + LOCAL_HEADER - 4)
    name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + LOCAL_HEADER + int(name) + int(extra)


def save_arrays(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the progress of an evaluation to ``path`` atomically."""
    given: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda file: np.savez(file, **given))


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what ``save_arrays`` wrote. Raises UserError if it is damaged."""
    if why := damage(path):
        raise UserError(
            f"{path} is damaged ({why}): delete {path.parent}, and the same command evaluates from the start"
        )
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def digest(value: Any, length: int = 8) -> str:
    """Hash of plain values, ``length`` hex digits; the order of dictionary keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]
