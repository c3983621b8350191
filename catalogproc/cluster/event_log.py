"""The events of a run, one JSON object per line, in log.jsonl of the output folder.

Each line has ``time`` (UTC), ``event`` and its fields. Each start of a run appends. The log is
for other programs: no result depends on it, and if it cannot be written the run goes on.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalogproc.errors import masked
from catalogproc.rundir.manifest import LOG_FILE

if TYPE_CHECKING:
    from catalogproc.cluster.result import RunResult
    from catalogproc.cluster.scheduler import ChunkScheduler

_LOG = logging.getLogger("catalogproc.run")
_WARNINGS = {"chunk tried again", "chunk failed", "stopped short", "note"}


class EventLog:
    """The log of one start of a run; a context manager.

    Parameters
    ----------
    folder
        The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / LOG_FILE
        self._written: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = open(os.open(self._path, flags, 0o644), "w", encoding="utf-8")
        except OSError:
            self._file = None  # type: ignore[assignment]
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:
            name = getattr(raised[0], "__name__", str(raised[0]))
            self.write("ended", by=name, why=str(raised[1]))
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self._file = None  # type: ignore[assignment]

    def write(self, event: str, **fields: Any) -> None:
        """Append a line.

        Parameters
        ----------
        event
            What happened.
        **fields
            Values that JSON can hold; others are written as text.
        """
        level = logging.WARNING if event in _WARNINGS else logging.INFO
        if _LOG.isEnabledFor(level):
            words = ", ".join(f"{name} {value}" for name, value in fields.items() if value)
            _LOG.log(level, "%s", masked(f"{event}: {words}" if words else event))
        content = {"time": datetime.now(UTC).isoformat(), "event": event, **fields}
        if self._file is not None:
            text = masked(json.dumps(content, ensure_ascii=False, default=str))
            try:
                self._file.write(text + "\n")
                self._file.flush()
            except OSError:  # a full disk: the lines before stay
                self._file = None  # type: ignore[assignment]

    def update(self, scheduler: ChunkScheduler) -> None:
        """Append what happened since the last call.

        Parameters
        ----------
        scheduler
            The run's scheduler.
        """
        for receipt in self._new("receipts", scheduler.receipts):
            self.write(
                "chunk done", chunk=receipt.chunk_id, file=receipt.file,
                files=len(receipt.each_file()), read=receipt.rows_read,
                written=receipt.rows_written, rejected=dict(receipt.rejected_by_reason),
                worker=receipt.worker, device=receipt.device, seconds=round(receipt.seconds, 4),
                stages={name: round(value, 4) for name, value in receipt.stage_seconds.items()},
            )  # fmt: skip
        for failure in self._new("retries", scheduler.retries):
            self.write("chunk tried again", **vars(failure))
        for failure in self._new("failures", scheduler.failures):
            self.write("chunk failed", **vars(failure))
        for note in self._new("notes", list(scheduler.notes)):
            self.write("note", text=note)

    def finish(self, result: RunResult) -> None:
        """Append how the run ended.

        Parameters
        ----------
        result
            The run's result.
        """
        self.write(
            "finished" if result.exit_code == 0 else "stopped short",
            chunks=result.chunks, done=result.chunks_done, failed=len(result.failures),
            read=result.rows_read, written=result.rows_written,
            rejected=dict(result.rejected_by_reason), seconds=round(result.seconds, 3),
            why=result.stopped,
        )  # fmt: skip

    def _new(self, name: str, items: list[Any]) -> list[Any]:
        """Return the items that came since the last call of this name."""
        count = self._written.get(name, 0)
        self._written[name] = len(items)
        return items[count:]
