"""Work ahead in threads, while what was made before is used.

Steps one after the other are a pipeline: each works on its own items at the same time. Items stay
in order, their number is bounded, and an error is raised where its item would be yielded. When the
caller stops early, what is being made is finished, and nothing more is begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
_END: Any = object()


def ahead(items: Generator[Item], depth: int) -> Generator[Item]:
    """Yield the items of a generator, the next ones of which are made in a thread of its own.

    Parameters
    ----------
    items
        Makes the items; it is closed when the caller stops early.
    depth
        How many items are made before they are asked for; 0 makes each when it is asked for,
        without a thread.
    """
    if not depth:
        yield from items
        return
    with ThreadPoolExecutor(1, "ahead") as thread:
        made: deque[Future[Item]] = deque()
        try:
            for _ in range(depth):
                made.append(thread.submit(next, items, _END))
            while (item := made.popleft().result()) is not _END:
                made.append(thread.submit(next, items, _END))
                yield item
                del item  # a batch less in memory while the next one is waited for
        finally:
            for one in made:
                one.cancel()
            thread.submit(items.close).result()


def mapped(step: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Generator[Made]:
    """Yield what a step makes of each item, of several at a time in threads.

    Parameters
    ----------
    step
        The step; it must not depend on the items before.
    items
        The items, which are asked for in the caller's thread.
    threads
        How many; 0 makes each when it is asked for, without a thread.
    """
    if not threads:
        yield from map(step, items)
        return
    with ThreadPoolExecutor(threads, "ahead") as pool:
        made: deque[Future[Made]] = deque()
        try:
            for item in items:
                made.append(pool.submit(step, item))
                if len(made) > threads:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            for one in made:
                one.cancel()
