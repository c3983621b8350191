"""What a run did, and what it could not do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogproc.errors import CatalogprocError

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk

_DEFECT = (
    "this looks like a defect of catalogproc: tell its makers these lines; to go on without the "
    "file, leave it out and give a new --output"
)
_ADVICE = {
    "MemoryError": "give each worker more memory (fewer --workers), or set a smaller chunk_rows in "
    "the job and give a new --output",
    "WorkerDied": "give each worker more memory (fewer --workers); if it dies all the same, try "
    "the file alone: catalogproc convert FILE --output DIR",
    "OSError": "see to the disk or the file server, then give the same command again",
    "InputError": "fetch the file again, or leave it out and give a new --output",
    "CountError": _DEFECT,
}
"""What to do about a failure whose cause does not say it, by its kind."""
SHOWN = 50
"""How many failures are told one by one."""


@dataclass(frozen=True)
class Failure:
    """A chunk that could not be done, or a file that could not even be cut into chunks."""

    chunk: str
    file: str
    rows: str
    kind: str
    cause: str

    @classmethod
    def of_file(cls, file: Path, error: BaseException) -> Failure:
        return cls("", str(file), "", type(error).__name__, words(error))

    @classmethod
    def of_chunk(cls, chunk: Chunk, kind: str, cause: str) -> Failure:
        return cls(chunk.id, str(chunk.file), rows_of(chunk), kind, cause)

    def lines(self) -> list[str]:
        place = f"{self.file}, {self.rows}" if self.rows else self.file
        first, *more = self.cause.splitlines() or [self.kind]
        lines = [f"  {place}: {first}", *(f"    {line}" for line in more)]
        return lines if "what to do: " in self.cause else [*lines, f"      {self.advice}"]

    @property
    def advice(self) -> str:
        """What the user can do about it, in a line."""
        for line in self.cause.splitlines():
            if line.strip().startswith("what to do: "):
                return line.strip()
        return f"what to do: {_ADVICE.get(self.kind, _DEFECT)}"


@dataclass(frozen=True)
class Account:
    """A run, counted.

    Attributes
    ----------
    output
        The output folder.
    chunks, chunks_done, chunks_run
        All of the plan; those that are done now; those of them that this run did.
    rows_read, rows_written, rows_rejected, rejected_by_reason
        Of all that is done, by the receipts.
    rows_run
        Rows read by this run.
    seconds
        Wall time of this run, from the first chunk handed out to the last one back.
    failures
        Each chunk or file that failed, with its cause.
    stopped
        Why the run ended early; empty where it did not.
    workers
        The device of each worker at the start.
    notes
        Workers that were left out, and why; ``announce`` told them at once.
    """

    output: Path
    chunks: int
    chunks_done: int
    chunks_run: int
    rows_read: int
    rows_written: int
    rows_rejected: int
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)
    rows_run: int = 0
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()
    stopped: str = ""
    workers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stars_per_second(self) -> float:
        """Rows read a second in this run; 0 where there was nothing to do."""
        return self.rows_run / self.seconds if self.seconds > 0 else 0.0

    @property
    def unfinished(self) -> int:
        """Chunks that are neither done nor failed."""
        failed = sum(1 for failure in self.failures if failure.chunk)
        return self.chunks - self.chunks_done - failed

    @property
    def exit_code(self) -> int:
        """0 where everything is done, 1 where some chunk is not."""
        return 1 if self.failures or self.unfinished or self.stopped else 0

    def to_dict(self) -> dict[str, Any]:
        """The account for a program: its fields, plain, and what follows from them."""
        return asdict(self) | {
            "output": str(self.output),
            "rejected_by_reason": dict(self.rejected_by_reason),
            "stars_per_second": self.stars_per_second,
            "unfinished": self.unfinished,
            "exit_code": self.exit_code,
        }

    def lines(self) -> list[str]:
        """The account for the user."""
        lines = []
        if self.chunks_run:
            lines.append(
                f"{self.rows_run:,} stars in {self.seconds:,.1f} s "
                f"({self.stars_per_second:,.0f} a second), {_plural(self.chunks_run, 'chunk')}"
            )
        elif self.chunks_done == self.chunks and not self.failures:
            lines.append("nothing to do: every chunk is done already")
        rejected = ", ".join(f"{n:,} {why}" for why, n in sorted(self.rejected_by_reason.items()))
        lines.append(
            f"{self.output}: {self.rows_written:,} stars written, {self.rows_rejected:,} rejected"
            + (f" ({rejected})" if rejected else "")
        )
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        if self.failures:
            lines.append(f"{_plural(len(self.failures), 'failure')}:")
            for failure in self.failures[:SHOWN]:
                lines += failure.lines()
            if len(self.failures) > SHOWN:
                lines.append(f"  and {len(self.failures) - SHOWN} more")
        if self.exit_code:
            left = f"{_plural(self.unfinished, 'chunk')} not begun; " if self.unfinished else ""
            lines.append(f"{left}the same command again does what is missing")
        return lines


def words(error: BaseException) -> str:
    """An error for the user: ours as it stands, another with its kind."""
    if isinstance(error, CatalogprocError):
        return str(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")


def rows_of(chunk: Chunk) -> str:
    """Which rows a chunk covers, in words."""
    if chunk.rows is None:
        return "all rows" if not chunk.first_row else f"rows from {chunk.first_row:,}"
    return f"rows {chunk.first_row:,} to {chunk.first_row + chunk.rows - 1:,}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
