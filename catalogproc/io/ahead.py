"""An iterator that works ahead in a thread, while what it yields is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


def ahead(items: Generator[Item], depth: int) -> Generator[Item]:
    """Yield the items of a generator, the next ones of which are made in a thread of its own.

    Several one after the other are a pipeline: each works on its own items at the same time. An
    error is raised where its item would be yielded. When the caller stops early, the item that is
    being made is finished, and the generator is closed.

    Parameters
    ----------
    items
        Makes the items.
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
