"""The progress of a run, from its receipts alone: also while it runs, and from another host.

Whether it has ended is also known from its log and from the process that its lock names.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalogproc.errors import plural
from catalogproc.io.processes import has_ended
from catalogproc.rundir.manifest import LOCK_FILE, LOG_FILE, read_identity
from catalogproc.rundir.receipts import Receipt, iterate_receipts, receipt_files
from catalogproc.rundir.summary import summarise

ENDS = ("finished", "stopped short", "ended")
"""Events of the log after which a run no longer works."""
_TAIL = 65_536
RECENT = 20
"""The present pace is that of this number of chunks, the last ones."""


@dataclass(frozen=True)
class Status:
    """The progress of a run.

    Attributes
    ----------
    folder, run_id
        The output folder and the run.
    chunks
        Number of finished chunks.
    rows
        Number of rows of the inputs; None if a file does not state it.
    rows_read, rows_written, rows_rejected, rejected_by_reason
        Counts over the finished chunks.
    pace
        Stars read per second during the last :data:`RECENT` chunks.
    seconds_left
        Remaining seconds at that pace; None if unknown.
    idle
        Seconds since the last chunk was finished; None if none is.
    stage_seconds
        Seconds by stage, summed over all workers.
    workers, devices
        Number of chunks of each worker; the devices.
    unreadable
        Number of receipts that cannot be read; their chunks are processed again.
    """

    folder: str
    run_id: str
    chunks: int
    rows: int | None
    rows_read: int
    rows_written: int
    rows_rejected: int
    rejected_by_reason: dict[str, int]
    pace: float
    seconds_left: float | None
    idle: float | None
    stage_seconds: dict[str, float]
    workers: dict[str, int]
    devices: list[str]
    unreadable: int

    @property
    def finished(self) -> bool:
        """Whether every row of the inputs has been read."""
        return self.rows is not None and self.rows_read >= self.rows

    def to_dict(self) -> dict[str, Any]:
        """Return the progress for a program."""
        return asdict(self) | {"finished": self.finished}

    def lines(self) -> list[str]:
        """Return the progress for the user."""
        of = f" of {self.rows:,}" if self.rows is not None else ""
        share = f", {self.rows_read / self.rows:.0%}" if self.rows else ""
        rejected = ", ".join(f"{n:,} {why}" for why, n in sorted(self.rejected_by_reason.items()))
        lines = [
            f"run {self.run_id}: {self.rows_read:,}{of} stars read{share}, "
            f"in {plural(self.chunks, 'chunk')}",
            f"{self.rows_written:,} written, {self.rows_rejected:,} rejected"
            + (f" ({rejected})" if rejected else ""),
        ]
        if self.finished:
            lines.append("finished: every row of the inputs has been read")
        elif self.idle is not None:
            left = "" if self.seconds_left is None else f", {_time(self.seconds_left)} left"
            lines.append(f"{self.pace:,.0f} stars per second{left}")
            lines.append(f"last chunk finished {_time(self.idle)} ago")
        if self.stage_seconds:
            total = sum(self.stage_seconds.values()) or 1.0
            stages = sorted(self.stage_seconds.items(), key=lambda item: -item[1])
            lines.append(
                "time: "
                + ", ".join(f"{name} {s / total:.0%}" for name, s in stages if s / total >= 0.005)
            )
        if self.workers:
            lines.append(
                f"{plural(len(self.workers), 'worker')} on {', '.join(self.devices)}, "
                f"{_span(self.workers.values())}{' each' if len(self.workers) > 1 else ''}"
            )
        if self.unreadable:
            lines.append(
                f"{plural(self.unreadable, 'receipt')} cannot be read: the chunks are "
                "processed again"
            )
        return lines


def status(folder: Path, now: datetime | None = None) -> Status:
    """Return the progress of a run.

    Parameters
    ----------
    folder
        The output folder of a run.
    now
        The time to which ``idle`` counts; the present where None.

    Raises
    ------
    ResumeError
        The folder holds no run.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    files = receipt_files(folder)
    receipts = sorted(iterate_receipts(folder), key=lambda receipt: receipt.finished)
    total = summarise(identity, receipts)
    counts = [file.rows for file in identity.inputs]
    rows = None if None in counts else sum(count or 0 for count in counts)
    pace = _pace(receipts[-RECENT:])
    left = None
    if rows is not None and pace > 0:
        left = max(rows - total["rows_read"], 0) / pace
    idle = None
    if receipts:
        last = datetime.fromisoformat(receipts[-1].finished)
        idle = max(0.0, ((now or datetime.now(UTC)) - last).total_seconds())
    return Status(
        folder=str(folder),
        run_id=identity.run_id,
        chunks=len(receipts),
        rows=rows,
        rows_read=total["rows_read"],
        rows_written=total["rows_written"],
        rows_rejected=total["rows_rejected"],
        rejected_by_reason=total["rejected_by_reason"],
        pace=pace,
        seconds_left=left,
        idle=idle,
        stage_seconds=total["stage_seconds"],
        workers=dict(Counter(receipt.worker for receipt in receipts)),
        devices=total["devices"],
        unreadable=len(files) - len(receipts),
    )


def has_stopped(folder: Path) -> bool:
    """Return whether no process works on a run any more, as far as its files tell.

    Parameters
    ----------
    folder
        The output folder of a run.

    Returns
    -------
    bool
        True where the last line of the log says that the run ended, or where the process that
        the lock names ran on this host and is gone. A run that was killed on another host is not
        known to have ended.
    """
    folder = Path(folder)
    try:
        with (folder / LOG_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            last = json.loads(file.read().splitlines()[-1])
        if last["event"] in ENDS:
            return True
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        pass  # no log, or a line that is being written
    try:
        return has_ended((folder / LOCK_FILE).read_bytes())
    except OSError:
        return False


def _pace(receipts: Sequence[Receipt]) -> float:
    """Return stars per second, from the first start to the last end of these chunks."""
    if not receipts:
        return 0.0
    begun = min(datetime.fromisoformat(receipt.started) for receipt in receipts)
    ended = max(datetime.fromisoformat(receipt.finished) for receipt in receipts)
    seconds = (ended - begun).total_seconds()
    read = sum(receipt.rows_read for receipt in receipts)
    # After a clock was set back between two chunks, the pace is unknown.
    return read / seconds if seconds > 0 else 0.0


def _span(counts: Iterable[int]) -> str:
    few, many = min(counts), max(counts)
    return plural(many, "chunk") if few == many else f"{few:,} to {plural(many, 'chunk')}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
