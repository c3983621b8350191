"""How a run stands, from its receipts alone: also while it goes on, also on another machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalogproc.rundir.manifest import read_identity
from catalogproc.rundir.provenance import summarise
from catalogproc.rundir.receipts import Receipt, iterate_receipts, receipt_files

RECENT = 20
"""Chunks, the last ones, of which the present pace is told."""


@dataclass(frozen=True)
class Status:
    """How a run stands.

    ``rows`` are those of its inputs, None where a file does not tell; ``pace`` the stars read a
    second while the last RECENT chunks were done; ``seconds_left`` what that promises, None
    where it is not known; ``idle`` seconds since the last chunk was finished; ``workers`` how
    many chunks each worker has done; ``unreadable`` receipts, whose chunks are done anew.
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
        """Whether every row of the inputs is accounted for."""
        return self.rows is not None and self.rows_read >= self.rows

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"finished": self.finished}

    def lines(self) -> list[str]:
        """For people."""
        of = f" of {self.rows:,}" if self.rows is not None else ""
        share = f", {self.rows_read / self.rows:.0%}" if self.rows else ""
        rejected = ", ".join(f"{n:,} {why}" for why, n in sorted(self.rejected_by_reason.items()))
        lines = [
            f"run {self.run_id}: {self.rows_read:,}{of} stars read{share}, "
            f"in {self.chunks:,} chunks",
            f"{self.rows_written:,} written, {self.rows_rejected:,} rejected"
            + (f" ({rejected})" if rejected else ""),
        ]
        if self.finished:
            lines.append("every row of the inputs is accounted for")
        elif self.idle is not None:
            left = "" if self.seconds_left is None else f", {_time(self.seconds_left)} to go"
            lines.append(f"{self.pace:,.0f} stars a second{left}")
            lines.append(f"last chunk finished {_time(self.idle)} ago")
        if self.stage_seconds:
            total = sum(self.stage_seconds.values()) or 1.0
            stages = sorted(self.stage_seconds.items(), key=lambda item: -item[1])
            lines.append("time: " + ", ".join(f"{name} {s / total:.0%}" for name, s in stages))
        if self.workers:
            lines.append(
                f"{len(self.workers):,} workers on {', '.join(self.devices)}, "
                f"{min(self.workers.values()):,} to {max(self.workers.values()):,} chunks each"
            )
        if self.unreadable:
            lines.append(f"{self.unreadable:,} receipts cannot be read: those chunks are done anew")
        return lines


def status(folder: Path, now: datetime | None = None) -> Status:
    """How the run in a folder stands. Raises ResumeError where it holds none."""
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


def _pace(receipts: Sequence[Receipt]) -> float:
    """Stars a second, from the first of these chunks begun to the last one finished."""
    if not receipts:
        return 0.0
    begun = min(datetime.fromisoformat(receipt.started) for receipt in receipts)
    ended = max(datetime.fromisoformat(receipt.finished) for receipt in receipts)
    seconds = (ended - begun).total_seconds()
    read = sum(receipt.rows_read for receipt in receipts)
    # A clock that was set back between two chunks tells nothing.
    return read / seconds if seconds > 0 else 0.0


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
