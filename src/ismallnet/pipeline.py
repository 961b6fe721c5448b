"""Work in step on a line: a thread that reads ahead, a thread that writes behind, and bounded belts between.

Order is kept. What is raised in a thread is raised in the caller's; leaving the `with` block, by an exception
or Ctrl-C too, ends both threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

LIMIT = 2**26
"""Bytes that may wait on a belt; one item is let on whatever it weighs."""
_PATIENCE_S = 5.0
"""Seconds that a reader deep inside a file is waited for at the end; it dies with the process otherwise."""


class _Closed(Exception):  # noqa: N818
    """The belt carries nothing any more."""


class _Belt(Generic[T]):
    """A queue of items between two threads, bounded by their weight."""

    def __init__(self, weigh: Callable[[T], int], limit: int) -> None:
        self._items, self._weigh, self._limit = deque[T](), weigh, limit
        self._weight, self._ended, self._stopped = 0, False, False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Wait for room and put an item; `_Closed` where the belt was stopped."""
        weight = self._weigh(item)
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._items or self._weight + weight <= self._limit
            )
            if self._stopped:
                raise _Closed
            self._items.append(item)
            self._weight += weight
            self._changed.notify_all()

    def get(self) -> T:
        """Wait for an item and take it; `_Closed` where none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ended or self._items)
            if self._stopped or not self._items:
                raise _Closed
            item = self._items.popleft()
            self._weight -= self._weigh(item)
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Nothing more is put; what is on the belt is still taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Drop what is on the belt."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class Ahead(Generic[T]):
    """Draws items in a thread of its own, ahead of who takes them; a context, and an iterator inside.

    Args:
        items: Where they come from.
        weigh: Gives the bytes of an item.
        limit: Bytes that may wait.
    """

    def __init__(self, items: Iterator[T], weigh: Callable[[T], int], limit: int = LIMIT) -> None:
        self._items, self._belt = items, _Belt(weigh, limit)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._belt.stop()
        self._thread.join(_PATIENCE_S)

    def __iter__(self) -> Iterator[T]:
        with contextlib.suppress(_Closed):
            while True:
                yield self._belt.get()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            for item in self._items:
                self._belt.put(item)
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._belt.end()


class Behind(Generic[T]):
    """Handles items in a thread of its own, behind who puts them; leaving the context waits for the last.

    Args:
        handle: Called with every item, in their order.
        weigh: Gives the bytes of an item.
        limit: Bytes that may wait.
    """

    def __init__(self, handle: Callable[[T], None], weigh: Callable[[T], int], limit: int = LIMIT) -> None:
        self._handle, self._belt = handle, _Belt(weigh, limit)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._belt.end()
        else:
            self._belt.stop()
        try:
            self._thread.join()
        except BaseException:  # Ctrl-C while the last items are handled
            self._belt.stop()
            self._thread.join()
            raise
        if error is None and self._error:
            raise self._error

    def put(self, item: T) -> None:
        """Hand an item over; raises what handling an earlier one raised."""
        try:
            self._belt.put(item)
        except _Closed:
            if self._error:
                raise self._error from None
            raise

    def _run(self) -> None:
        try:
            while True:
                self._handle(self._belt.get())
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
            self._belt.stop()
