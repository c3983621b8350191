"""Draw the stars of the next steps in threads, while the device computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

Draw = Callable[[int], tuple[Any, ...]]
"""Returns the stars of a step; the same ones whenever it is called."""


class StarsAhead:
    """The stars of successive steps, of which the next ones are drawn beforehand.

    The stars of a step follow from its number, so that they are those drawn without threads.

    Parameters
    ----------
    draw
        Returns the stars of a step. With threads it is called in several at once.
    threads
        Number of threads; 0 draws the stars of a step when they are needed.
    """

    def __init__(self, draw: Draw, threads: int) -> None:
        self._draw, self._threads = draw, threads
        self._pool = ThreadPoolExecutor(threads, "stars") if threads else None
        self._pending: dict[int, Future[tuple[Any, ...]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> tuple[Any, ...]:
        """Return the stars of a step.

        Parameters
        ----------
        step
            Number of the step.
        """
        if self._pool is None:
            return self._draw(step)
        for number in range(step, step + self._threads + 1):
            if number not in self._pending:
                self._pending[number] = self._pool.submit(self._draw, number)
        return self._pending.pop(step).result()
