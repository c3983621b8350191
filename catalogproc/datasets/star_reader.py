"""Files of spectra as a model reads them: screened batches, and their tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from catalogproc.errors import CountError
from catalogproc.features.tokens import READABLE, Tokens, tokens
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.job import Job
from catalogproc.readers.gaia_source import open_companion
from catalogproc.readers.xp import read_spectra
from catalogproc.vocabulary import Vocabulary

ROWS = 8_192
"""Stars a batch."""


def everything(vocabulary: Vocabulary, *, labels: bool = False) -> Job:
    """A job that reads all that files tell of a star: every relevant coefficient, the colours.

    With ``labels`` the labels, too, that a companion may tell: E(B-V) and pseudo-luminosity.
    """
    kinds = ("colour", "label") if labels else ("colour",)
    return Job(
        "everything",
        inputs=tuple(
            name for name in READABLE
            if name in vocabulary and vocabulary.tokens[vocabulary.column(name)].kind in kinds
        ),
        coefficients=len(vocabulary),
    )  # fmt: skip


@dataclass
class Tally:
    """Rows of files, counted as they are read: those that a run would reject among them."""

    read: int = 0
    rejected: int = 0

    def account(self, written: int, left_out: int = 0) -> None:
        """Raise CountError unless read = written + left out + rejected."""
        if written + left_out + self.rejected != self.read:
            raise CountError(
                "rows in and rows out disagree", wanted=self.read,
                found=f"{written} written, {left_out} left out, {self.rejected} rejected",
            )  # fmt: skip


def screened(
    files: Sequence[Path],
    vocabulary: Vocabulary,
    tally: Tally | None = None,
    batch_rows: int = ROWS,
) -> Iterator[pa.RecordBatch]:
    """The rows of files that a run would answer, in batches; the others are left out, counted
    in a ``tally``.

    Raises
    ------
    InputError
        A file cannot be read.
    ReleaseError
        Spectra of a release that the vocabulary does not have.
    """
    seen = Duplicates()
    for path in files:
        for batch in read_spectra(path, batch_rows=batch_rows):
            good, rejected = screen(batch, vocabulary, seen, str(path))
            if tally is not None:
                tally.read, tally.rejected = (
                    tally.read + batch.num_rows, tally.rejected + rejected.num_rows,
                )  # fmt: skip
            if good.num_rows:
                yield good


def read_stars(
    files: Sequence[Path],
    companion: Sequence[Path],
    vocabulary: Vocabulary,
    job: Job,
    tally: Tally | None = None,
    batch_rows: int = ROWS,
) -> Iterator[tuple[pa.RecordBatch, Tokens]]:
    """Screened batches with what the job reads of them, a companion's columns among it."""
    with tempfile.TemporaryDirectory() as staging:
        beside = open_companion(companion, Path(staging)) if companion else None
        for good in screened(files, vocabulary, tally, batch_rows):
            match = None if beside is None else beside.match(good.column("source_id"))
            yield good, tokens(good, match, vocabulary, job)
