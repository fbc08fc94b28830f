"""Prefetching gives the same items and errors, and always closes the source."""

import threading
from collections.abc import Iterator

import pytest
import torch

from dkl.data import Augment, Batches, Batching
from dkl.data.loading import prefetch
from tests.data.common import make_images


class Source:
    """Yields 0, 1, …, records its use, and fails at ``bad``."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.count, self.bad, self.made, self.closed = count, bad, 0, False
        self.threads: set[str] = set()
        self.ahead = threading.Event()

    def items(self) -> Iterator[int]:
        try:
            for item in range(self.count):
                if item == self.bad:
                    raise ZeroDivisionError("in the thread")
                self.threads.add(threading.current_thread().name)
                self.made += 1
                if self.made == 2:
                    self.ahead.set()
                yield item
        finally:
            self.closed = True


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_items_come_in_order_from_one_thread(count: int) -> None:
    source = Source(count)
    assert list(prefetch(source.items())) == list(range(count))
    assert source.threads == ({"prefetch_0"} if count else set())
    assert source.closed
    assert alive() == []


def test_exactly_one_item_is_made_ahead() -> None:
    source = Source(5)
    items = prefetch(source.items())
    assert next(items) == 0
    assert source.ahead.wait(5)
    assert source.made == 2


@pytest.mark.parametrize("bad", [0, 2])
def test_an_error_is_raised_after_the_items_before_it(bad: int) -> None:
    source = Source(5, bad)
    items = prefetch(source.items())
    assert [next(items) for _ in range(bad)] == list(range(bad))
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        next(items)
    assert source.closed
    assert alive() == []


@pytest.mark.parametrize("how", ["close", "drop", "never started"])
def test_stopping_early_ends_the_thread_and_closes_the_source(how: str) -> None:
    source = Source(5)
    made = source.items()  # referenced here, so that it is not closed by garbage collection
    items = prefetch(made)
    if how != "never started":
        next(items)
    if how == "close":
        items.close()
    del items
    assert alive() == []
    assert source.closed or how == "never started"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("second_view", [None, "cutout", "autoaugment"])
def test_batches_on_a_gpu_are_those_on_the_cpu(second_view: str | None) -> None:
    data = make_images(50, (3, 32, 32))
    augment = Augment(crop_padding=4, flip=True, cutout=8, second_view=second_view)
    both = [Batching(16, augment=augment, shuffle=True, device=device) for device in ("cpu", "cuda")]
    here, there = (Batches(data, batching) for batching in both)
    for one, two in zip(here.epoch(1), there.epoch(1), strict=True):
        assert torch.equal(one.images, two.images.cpu())
        assert torch.equal(one.labels, two.labels.cpu())
