"""Exceptions whose message is for the user; the command line prints them without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Wrong input, missing data or a wrong option. The message says how to fix it."""


class BusyError(UserError):
    """Another process holds the lock. The message names what is locked."""


class FullDiskError(UserError):
    """A file does not fit on its disk. The message says how much space it needs."""


class NotInstalledError(UserError):
    """An optional library is missing. The message says how to install it."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Import optional libraries inside. Raises NotInstalledError, which names ``extra``, if one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or str(error)).partition(".")[0]
        raise NotInstalledError(f"{library} is not installed: pip install 'dkl[{extra}]'") from None


def first_line(error: BaseException) -> str:
    """The first line of the text of ``error``, for messages of one line."""
    return str(error).partition("\n")[0]
