"""Prepare the next item in a thread."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(source: Generator[T, None, None]) -> Iterator[T]:
    """Yield the items of ``source`` (none may be None), each made while the one before is in use.

    Errors of ``source`` are raised here. If the iterator is closed early, it waits for the item in preparation and
    closes ``source``.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
            coming = thread.submit(next, source, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, source, None)
                yield item
    finally:
        source.close()
