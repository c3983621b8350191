"""The result of a run: counts, and each failure with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogproc.errors import CatalogprocError, TransientError, plural
from catalogproc.io.remote_file import File
from catalogproc.readers.auxiliary_account import account_lines, zero_point_lines

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk

WORKER_DIED = "WorkerDied"
_DEFECT = (
    "this looks like a defect of catalogproc: report these lines to its authors; to go on without "
    "the file, leave it out and give a new --output"
)
_ADVICE = {
    "MemoryError": "give each worker more memory (fewer --workers), or set a smaller chunk_rows in "
    "the job and give a new --output",
    WORKER_DIED: "give each worker more memory (fewer --workers); if it dies again, try the file "
    "alone: catalogproc convert FILE --output DIR",
    "OSError": "check the disk or the file server, then run the same command again",
    "WorkerError": "repair the workers that are not used, or leave them out; then run the same "
    "command again",
    "InputError": "download the file again, or leave it out and give a new --output",
}
"""What to do about a failure whose error does not say it, by kind; else it is a defect."""
SHOWN = 50
"""Number of failures that are listed one by one."""


@dataclass(frozen=True)
class Failure:
    """A chunk that failed, or a file that cannot be divided into chunks.

    Attributes
    ----------
    chunk
        The chunk's identifier; empty for a file.
    file, rows
        Which file, and which of its rows in words.
    kind
        Class name of the error.
    cause
        The error's text, without what to do about it.
    advice
        What the user can do.
    """

    chunk: str
    file: str
    rows: str
    kind: str
    cause: str
    advice: str

    @classmethod
    def of_file(cls, file: File, error: BaseException) -> Failure:
        """Return the failure of a file that cannot be read.

        Parameters
        ----------
        file, error
            The file, and why it cannot be read.
        """
        kind = type(error).__name__
        return cls("", str(file), "", kind, describe_error(error), advice_for(error, kind))

    @classmethod
    def of_chunk(
        cls, chunk: Chunk, error: BaseException | None, kind: str = "", cause: str = ""
    ) -> Failure:
        """Return the failure of a chunk.

        Parameters
        ----------
        chunk, error
            The chunk, and its error if there is one.
        kind, cause
            Replace what the error says.
        """
        kind = kind or type(error).__name__
        cause = cause or (describe_error(error) if error is not None else kind)
        return cls(
            chunk.id, files_in(chunk), row_range(chunk), kind, cause, advice_for(error, kind)
        )

    def lines(self) -> list[str]:
        """Return the failure for the user: place, cause, and what to do."""
        place = f"{self.file}, {self.rows}" if self.rows else self.file
        first, *more = self.cause.splitlines() or [self.kind]
        details = [f"    {line}" for line in more]
        return [f"  {place}: {first}", *details, f"      what to do: {self.advice}"]


@dataclass(frozen=True)
class RunResult:
    """The counts of a run.

    Attributes
    ----------
    output
        The output folder.
    chunks, chunks_done, chunks_run
        Number of chunks in the plan, of those that are done now, and of those done by this
        start.
    rows_read, rows_written, rows_rejected, rejected_by_reason
        Rows of all chunks that are done, from the receipts.
    files_rejected
        Input files of which every row was rejected.
    rows_matched
        Written rows whose star is in the auxiliary tables; None where the run has none.
    auxiliary, zero_point_difference
        What was taken from each auxiliary table, and from columns beside the spectra; how the
        two zero-points of the parallaxes differ (readers/auxiliary_account.py).
    rows_run
        Rows read by this start.
    seconds
        Time of this start in which at least one chunk was being processed, from the receipts, as
        in summary.json and the report.
    failures
        Each chunk or file that failed.
    stopped
        Why the run ended early; empty if it did not.
    workers
        The device of each worker at the start.
    notes
        Workers that are not used, and why; chunks for which memory did not suffice.
    """

    output: Path
    chunks: int
    chunks_done: int
    chunks_run: int
    rows_read: int
    rows_written: int
    rows_rejected: int
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)
    rows_matched: int | None = None
    auxiliary: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    zero_point_difference: Mapping[str, float] | None = None
    files_rejected: tuple[str, ...] = ()
    rows_run: int = 0
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()
    stopped: str = ""
    workers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stars_per_second(self) -> float:
        """Rows read per second by this start; 0 if there was nothing to do."""
        return self.rows_run / self.seconds if self.seconds > 0 else 0.0

    @property
    def unfinished(self) -> int:
        """Number of chunks that are neither done nor failed."""
        failed = sum(1 for failure in self.failures if failure.chunk)
        return self.chunks - self.chunks_done - failed

    @property
    def exit_code(self) -> int:
        """0 if every chunk is done and no file was rejected completely, else 1."""
        incomplete = self.failures or self.unfinished or self.stopped or self.files_rejected
        return 1 if incomplete else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the numbers derived from them, as JSON can hold them."""
        return asdict(self) | {
            "output": str(self.output),
            "rejected_by_reason": dict(self.rejected_by_reason),
            "stars_per_second": self.stars_per_second,
            "unfinished": self.unfinished,
            "exit_code": self.exit_code,
        }

    def lines(self) -> list[str]:
        """Return the result for the user."""
        lines = [*self._work_lines(), self.catalog_line(), *self._matched_lines()]
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        if self.failures:
            lines.append(f"{plural(len(self.failures), 'failure')}:")
            for failure in self.failures[:SHOWN]:
                lines += failure.lines()
            if len(self.failures) > SHOWN:
                lines.append(f"  and {len(self.failures) - SHOWN} more")
        if self.files_rejected:
            more = f" and {len(self.files_rejected) - SHOWN} more"
            lines.append(
                f"every row rejected of: {', '.join(self.files_rejected[:SHOWN])}"
                + (more if len(self.files_rejected) > SHOWN else "")
            )
        if self.failures or self.unfinished or self.stopped:
            left = f"{plural(self.unfinished, 'chunk')} not started; " if self.unfinished else ""
            lines.append(f"{left}run the same command again to resume")
        return lines

    def _work_lines(self) -> list[str]:
        if self.chunks_run:
            return [
                f"{plural(self.rows_run, 'star')} in {self.seconds:,.1f} s "
                f"({self.stars_per_second:,.0f} per second), {plural(self.chunks_run, 'chunk')}"
            ]
        if self.chunks_done == self.chunks and not self.failures:
            return ["nothing to do: every chunk is already done"]
        return []

    def catalog_line(self) -> str:
        """Return where the catalog is and what it has, in one line."""
        rejected = ", ".join(f"{n:,} {why}" for why, n in sorted(self.rejected_by_reason.items()))
        written = f"{self.output}: {plural(self.rows_written, 'star')} written"
        return f"{written}, {self.rows_rejected:,} rejected" + (
            f" ({rejected})" if rejected else ""
        )

    def _matched_lines(self) -> list[str]:
        if not self.rows_written:
            return []
        lines = []
        if self.rows_matched is not None:
            warning = "" if self.rows_matched else "warning: "
            lines.append(
                f"{warning}{self.rows_matched:,} of {plural(self.rows_written, 'star')} found in "
                "the gaia_source tables"
            )
        lines += account_lines(self.auxiliary, self.rows_written)
        return [*lines, *zero_point_lines(self.zero_point_difference)]


def describe_error(error: BaseException) -> str:
    """Return an error's text: of a CatalogprocError as it is, of another with its class.

    Parameters
    ----------
    error
        The error. Its advice is left out (see :func:`advice_for`).
    """
    if isinstance(error, CatalogprocError):
        return error.text(advice=False)
    return f"{type(error).__name__}: {error}".rstrip(": ")


def advice_for(error: BaseException | None, kind: str) -> str:
    """Return what the user can do about an error.

    Parameters
    ----------
    error
        The error, whose own advice comes first; None if there is none.
    kind
        Class name of the failure.
    """
    own = error.advice if isinstance(error, CatalogprocError) else None
    if own is None and isinstance(error, OSError | TransientError):
        kind = "OSError"
    return own or _ADVICE.get(kind, _DEFECT)


def files_in(chunk: Chunk) -> str:
    """Return which files a chunk is of, in words.

    Parameters
    ----------
    chunk
        A chunk.
    """
    first, *others = chunk.pieces
    return f"{first.file} and {plural(len(others), 'more file')}" if others else str(first.file)


def row_range(chunk: Chunk) -> str:
    """Return which rows of its file a chunk holds, in words.

    Parameters
    ----------
    chunk
        A chunk; its number of rows may be unknown.
    """
    first, rows = chunk.pieces[0].first_row, chunk.rows
    if rows is None or len(chunk.pieces) > 1:
        return "all rows" if not first else f"rows from {first:,}"
    return f"rows {first:,} to {first + rows - 1:,}"
