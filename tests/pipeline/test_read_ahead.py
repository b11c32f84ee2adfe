"""Reading ahead: same items, bounded, errors where they happened, and an end that ends both sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest import read_ahead


@given(st.lists(st.integers()), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_gives_the_same_items(items: list[int], count: int) -> None:
    assert list(read_ahead(iter(items), count)) == items


def test_is_at_most_so_many_ahead() -> None:
    drawn: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            drawn.append(i)
            yield i

    with closing(read_ahead(source(), 3)) as ahead:
        assert next(ahead) == 0
        time.sleep(0.3)
        assert len(drawn) <= 1 + 3 + 1  # taken, waiting, and one in hand


def test_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    ahead = read_ahead(source(), 4)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="two"):
        next(ahead)


def test_closing_early_closes_the_source_and_its_thread() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = read_ahead(source(), 2)
    next(ahead)
    ahead.close()
    assert closed.is_set()
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())
