"""Exceptions whose message is for the user; the command line prints them without a traceback."""

import difflib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Wrong input, missing data or a wrong option. The message says how to fix it.

    A list that is too long for a line is a note (``add_note``); the command line prints it before the message.
    """


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


def line_of(error: UserError | OSError) -> str:
    """What ``error`` says in one line; of the file system: the place, the reason, and how to fix it."""
    if not isinstance(error, OSError):
        return str(error)
    if not error.filename:
        return error.strerror or first_line(error) or type(error).__name__
    return f"{shortened(error.filename)}: {error.strerror}; check that its folder exists and can be written to"


def for_the_terminal(error: UserError | OSError) -> str:
    """The notes of ``error`` and, last, its line."""
    return visible("\n".join([*getattr(error, "__notes__", []), f"error: {line_of(error)}"]))


def visible(text: str) -> str:
    """Return ``text`` with control characters but line ends and tabs as escapes: they can hide or reorder the rest."""
    controls = {each for each in set(text) - {"\n", "\t"} if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp")}
    return text.translate({ord(each): each.encode("unicode_escape").decode() for each in controls})


def shortened(value: object, most: int = 80) -> str:
    """The text of ``value``, cut after ``most`` characters, for messages."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"


def similar(name: str, known: Iterable[str]) -> list[str]:
    """At most three of the ``known`` names that resemble ``name``, the closest first; case does not matter."""
    lower = {text.lower(): text for text in known if text != name}
    return [lower[text] for text in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]


def choose_from(name: str, known: Iterable[str]) -> str:
    """The end of a message about the unknown ``name``: what it may have meant, and all ``known`` names."""
    known = list(known)
    close = similar(name, known)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}{'Choose' if hint else 'choose'} one of {', '.join(known)}"
