"""Progress of a run: the stars that are done, from the workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS_DONE = "catalogproc_rows_done"
"""Name of the Dask metric that holds the rows done of each chunk that a worker processes."""


def rows_in_flight(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the rows that are done of the chunks that workers process, by chunk.

    Parameters
    ----------
    workers
        The workers by address, as in ``Client.scheduler_info()["workers"]``.
    """
    rows: dict[str, int] = {}
    for worker in workers.values():
        for chunk, done in ((worker.get("metrics") or {}).get(ROWS_DONE) or {}).items():
            rows[chunk] = max(rows.get(chunk, 0), int(done))
    return rows
