"""Progress of long work: a bar with the remaining time in a terminal, or a line every 15 seconds in a log file."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dkl.errors import visible

LOG_EVERY_SECONDS = 15.0


class Bar:
    """Progress of one part of the work; a ``note`` appears behind its name."""

    def __init__(self, name: str, total: int, done: int, console: Console) -> None:
        self.name, self.total, self.done, self.first = name, total, done, done
        self.console, self.note = console, ""
        self.started = self.printed = time.monotonic()
        self.live: Progress | None = None
        if console.is_terminal:  # a log file would fill with redrawn bars
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
            )
            self.live = Progress(*columns, console=console)
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
def bar(name: str, total: int, done: int = 0, console: Console | None = None) -> Iterator[Bar]:
    """Show a ``Bar`` of ``total`` steps, of which ``done`` are already done, while the body runs."""
    progress = Bar(name, total, done, console or Console(stderr=True, quiet=not _first()))
    try:
        yield progress
    finally:
        if progress.live is not None:
            progress.live.stop()


def _first() -> bool:
    """Return whether this is the one process that prints, if several share the work."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print a line to stderr without markup; of several processes only the first prints."""
    if not _first():
        return
    Console(stderr=True, soft_wrap=True).print(visible(text), markup=False, highlight=False, emoji=False)
