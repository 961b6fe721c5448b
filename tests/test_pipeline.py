"""The line: order, bounds, errors from every thread, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ismallnet.pipeline import Ahead, Behind


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"ahead", "behind"}


def weigh(item: int) -> int:
    return 1 if item else 0


def test_order_is_kept_through_both_threads() -> None:
    got: list[int] = []
    with Ahead(iter(range(1000)), weigh, 7) as items, Behind(got.append, weigh, 3) as writer:
        for item in items:
            writer.put(item)
    assert got == list(range(1000))
    assert not threads()


def test_no_more_is_drawn_than_may_wait() -> None:
    drawn = []

    def source() -> Iterator[int]:
        for n in range(1, 100):
            drawn.append(n)
            yield n

    with Ahead(source(), lambda _: 10, 30) as items:
        first = next(iter(items))
        time.sleep(0.2)
        assert (first, len(drawn)) == (1, 5)  # one taken, three that wait, one in the hand


def test_an_item_heavier_than_the_bound_is_let_on_alone() -> None:
    with Ahead(iter([1, 2, 3]), lambda _: 1000, 10) as items:
        assert list(items) == [1, 2, 3]


def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    got = []
    with pytest.raises(OSError, match="gone"), Ahead(source(), weigh) as items:  # noqa: PT012
        for item in items:
            got.append(item)  # noqa: PERF402
    assert got == [1]
    assert not threads()


@pytest.mark.parametrize("count", [1, 50])
def test_an_error_of_the_writer_reaches_who_puts(count: int) -> None:
    def handle(item: int) -> None:
        raise OSError(f"full at {item}")

    with pytest.raises(OSError, match="full at 0"), Behind(handle, weigh, 2) as writer:  # noqa: PT012
        for item in range(count):
            writer.put(item)
    assert not threads()


def test_an_interruption_ends_both_threads_and_drops_what_waits() -> None:
    got: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.05)
        got.append(item)

    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        Ahead(iter(range(1, 1000)), weigh, 10) as items,
        Behind(slow, weigh, 10) as writer,
    ):
        for item in items:
            writer.put(item)
            if item == 5:
                raise KeyboardInterrupt
    assert len(got) < 5
    assert not threads()


def test_an_interruption_while_the_last_items_are_handled_drops_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.05)
        got.append(item)

    join, calls = threading.Thread.join, []

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        calls.append(thread)
        if len(calls) == 1:
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt), Behind(slow, weigh, 1000) as writer:  # noqa: PT012
        for item in range(1, 20):
            writer.put(item)
    assert len(got) < 5
    assert not threads()
