"""The time that each stage of a chunk takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

STAGES = ("read", "screen", "match", "features", "predict", "rows", "write")


class Stopwatch:
    """Wall time since its creation, in all and by stage, in seconds.

    Stages that several threads work on at the same time add up to more than the time in all.
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._begin = time.perf_counter()
        self._turn = threading.Lock()

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage.

        Parameters
        ----------
        stage
            One of :data:`STAGES`.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._turn:
                self.seconds[stage] += time.perf_counter() - started

    def elapsed(self) -> float:
        """Return the time since the creation."""
        return time.perf_counter() - self._begin
