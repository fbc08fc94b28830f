"""Work ahead by one item in a thread."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(source: Generator[T, None, None]) -> Iterator[T]:
    """The items of ``source``, none of them None, each made while the one before is used; its errors are raised here.

    Closed early, it waits for the item in the making and closes ``source``.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
            coming = thread.submit(next, source, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, source, None)
                yield item
    finally:
        source.close()
