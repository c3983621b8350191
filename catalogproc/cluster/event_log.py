"""What happened in a run, line by line, for programs: log.jsonl in the output folder.

Each line is a JSON object with ``time`` (UTC), ``event`` and what belongs to it. Later starts of
the same run append. It is told and never read: nothing follows from it, and where it cannot be
written the run goes on.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalogproc.errors import masked

if TYPE_CHECKING:
    from catalogproc.cluster.result import Account
    from catalogproc.cluster.scheduler import Dispatch

LOG_FILE = "log.jsonl"


class Log:
    """The log of one start of a run. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / LOG_FILE
        self._seen: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = open(os.open(self._path, flags, 0o644), "w", encoding="utf-8")
        except OSError:
            self._file = None  # type: ignore[assignment]
        return self

    def __exit__(self, *ended: object) -> None:
        if ended[0] is not None:
            self.tell("ended", by=getattr(ended[0], "__name__", str(ended[0])), why=str(ended[1]))
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self._file = None  # type: ignore[assignment]

    def tell(self, event: str, **more: Any) -> None:
        """Append a line."""
        said = {"time": datetime.now(UTC).isoformat(), "event": event, **more}
        if self._file is not None:
            try:
                self._file.write(masked(json.dumps(said, ensure_ascii=False, default=str)) + "\n")
                self._file.flush()
            except OSError:  # a full disk: what is written of it stays
                self._file = None  # type: ignore[assignment]

    def see(self, now: Dispatch) -> None:
        """Append what has come since the last call."""
        for receipt in self._new("receipts", now.receipts):
            self.tell(
                "chunk done", chunk=receipt.chunk_id, file=receipt.file, read=receipt.rows_read,
                written=receipt.rows_written, rejected=dict(receipt.rejected_by_reason),
                worker=receipt.worker, device=receipt.device, seconds=round(receipt.seconds, 4),
                stages={name: round(value, 4) for name, value in receipt.stage_seconds.items()},
            )  # fmt: skip
        for failure in self._new("retries", now.retries):
            self.tell("chunk tried again", **vars(failure))
        for failure in self._new("failures", now.failures):
            self.tell("chunk failed", **vars(failure), advice=failure.advice)
        for note in self._new("notes", list(now.notes)):
            self.tell("note", text=note)

    def end(self, account: Account) -> None:
        """Append how it ended."""
        self.tell(
            "finished" if account.exit_code == 0 else "stopped short",
            chunks=account.chunks, done=account.chunks_done, failed=len(account.failures),
            read=account.rows_read, written=account.rows_written,
            rejected=dict(account.rejected_by_reason), seconds=round(account.seconds, 3),
            why=account.stopped,
        )  # fmt: skip

    def _new(self, name: str, all_of_them: list[Any]) -> list[Any]:
        seen = self._seen.get(name, 0)
        self._seen[name] = len(all_of_them)
        return all_of_them[seen:]
