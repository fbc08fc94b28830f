"""Progress of long work: a bar with the remaining time in a terminal, or a line every 15 seconds in a log file.

The bar needs rich; without it a terminal gets the lines too.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dkl.errors import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LOG_EVERY_SECONDS = 15.0


class PlainConsole:
    """What a ``Bar`` uses of rich's console, for an installation without rich."""

    is_terminal = False

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def print(self, text: str, **_: Any) -> None:
        """Print ``text`` to stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)


def stderr_console(quiet: bool = False) -> "Console | PlainConsole":
    """The console of stderr; of several processes only the first prints."""
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return PlainConsole(quiet)
    return Console(stderr=True, quiet=quiet)


class Bar:
    """Progress of one part of the work; a ``note`` appears behind its name."""

    def __init__(self, name: str, total: int, done: int, console: "Console | PlainConsole") -> None:
        self.name, self.total, self.done, self.first = name, total, done, done
        self.console, self.note = console, ""
        self.started = self.printed = time.monotonic()
        self.live: Progress | None = None
        if not isinstance(console, PlainConsole) and console.is_terminal:  # a log file would fill with redrawn bars
            from rich import progress as rich

            columns = (
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TimeElapsedColumn(),
                rich.TextColumn("eta"),
                rich.TimeRemainingColumn(),
            )
            self.live = rich.Progress(*columns, console=console)
            self.task = self.live.add_task(name, total=total, completed=done)
            self.live.start()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Add ``steps`` to the steps done."""
        self.reach(self.done + steps, note)

    def reach(self, done: int, note: str = "") -> None:
        """Set the number of steps done, at most ``total``; a ``note`` stays until the next one."""
        self.done = min(done, self.total)
        self.note = note or self.note
        text = f"{self.name}  {self.note}".rstrip()
        if self.live is not None:
            self.live.update(self.task, completed=self.done, description=text)
            return
        now = time.monotonic()
        if now - self.printed >= LOG_EVERY_SECONDS and self.done > self.first:
            # Steps of an earlier process took no time in this one, so they do not count for the speed.
            remaining = (now - self.started) / (self.done - self.first) * (self.total - self.done)
            eta = timedelta(seconds=round(remaining))
            self.console.print(f"{text}  {self.done}/{self.total}  eta {eta}", highlight=False)
            self.printed = now


@contextmanager
def bar(name: str, total: int, done: int = 0, console: "Console | PlainConsole | None" = None) -> Iterator[Bar]:
    """Show a ``Bar`` of ``total`` steps, of which ``done`` are already done, while the body runs."""
    progress = Bar(name, total, done, console or stderr_console())
    try:
        yield progress
    finally:
        if progress.live is not None:
            progress.live.stop()


UNITS = (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """``seconds`` as text, in the largest unit of which there are at least two."""
    unit, length = next((pair for pair in UNITS if seconds >= 2 * pair[1]), UNITS[-1])
    return f"{max(seconds / length, 1):.0f} {unit}"


def say(text: str) -> None:
    """Print a line to stderr without markup; of several processes only the first prints."""
    if os.environ.get("RANK", "0") == "0":
        print(visible(text), file=sys.stderr, flush=True)
