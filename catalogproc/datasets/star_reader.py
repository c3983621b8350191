"""Read files of spectra as a model does: screened batches, and their tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from catalogproc.errors import CountError
from catalogproc.features.tokens import READABLE, Tokens, tokens
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.io.remote_file import File
from catalogproc.job import Job
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.release_check import check_release
from catalogproc.readers.xp import read_spectra, split_own
from catalogproc.vocabulary import Vocabulary

ROWS = 8_192
"""Stars per batch."""


@dataclass(frozen=True)
class StarFiles:
    """Files of spectra, and of gaia_source and auxiliary tables joined by source_id."""

    spectra: Sequence[File]
    auxiliary: Sequence[File] = ()


def all_inputs_job(vocabulary: Vocabulary, *, labels: bool = False) -> Job:
    """Return a job that reads every relevant coefficient and all colours.

    Parameters
    ----------
    vocabulary
        Defines the tokens.
    labels
        Also read the labels that auxiliary tables may have: E(B-V) and pseudo-luminosity.
    """
    kinds = ("colour", "label") if labels else ("colour",)
    return Job(
        "all-inputs",
        inputs=tuple(
            name for name in READABLE
            if name in vocabulary and vocabulary.tokens[vocabulary.column(name)].kind in kinds
        ),
        coefficients=len(vocabulary),
    )  # fmt: skip


@dataclass
class RowCount:
    """Number of rows read from files, and of those that a run would reject."""

    read: int = 0
    rejected: int = 0

    def check(self, written: int, left_out: int = 0) -> None:
        """Check that read = written + left out + rejected.

        Parameters
        ----------
        written, left_out
            Numbers of rows.

        Raises
        ------
        CountError
            The numbers disagree.
        """
        if written + left_out + self.rejected != self.read:
            raise CountError(
                "rows in and rows out disagree", wanted=self.read,
                found=f"{written} written, {left_out} left out, {self.rejected} rejected",
            )  # fmt: skip


def screened(
    files: Sequence[File],
    vocabulary: Vocabulary,
    count: RowCount | None = None,
    batch_rows: int = ROWS,
) -> Iterator[pa.RecordBatch]:
    """Yield batches of the rows that a run would not reject, with the columns beside them.

    Parameters
    ----------
    files
        Files of spectra.
    vocabulary
        Of the model.
    count
        Counts the rows that are read and rejected.
    batch_rows
        Rows per batch that is read.

    Raises
    ------
    InputError
        A file cannot be read.
    ReleaseError
        The spectra are of a release that the vocabulary does not support.
    """
    seen = Duplicates()
    for path in files:
        check_release(path, vocabulary)
        release = vocabulary.data_release
        for batch in read_spectra(path, batch_rows=batch_rows, own=True, release=release):
            good, rejected = screen(batch, vocabulary, seen, str(path))
            if count is not None:
                count.read += batch.num_rows
                count.rejected += rejected.num_rows
            if good.num_rows:
                yield good


def batches(
    files: StarFiles,
    vocabulary: Vocabulary,
    count: RowCount | None = None,
    batch_rows: int = ROWS,
) -> Iterator[tuple[pa.RecordBatch, pa.Table | None]]:
    """Yield screened batches with the gaia_source columns of the same stars; None without any.

    Parameters
    ----------
    files
        Spectra and auxiliary tables.
    vocabulary
        Of the model.
    count
        Counts the rows that are read and rejected.
    batch_rows
        Rows per batch that is read.
    """
    with tempfile.TemporaryDirectory() as staging:
        auxiliary = open_auxiliary(files.auxiliary, Path(staging), vocabulary.data_release)
        for batch in screened(files.spectra, vocabulary, count, batch_rows):
            good, own = split_own(batch)
            match = None
            if own is not None or files.auxiliary:
                match = auxiliary.join(good.column("source_id"), own).rows
            yield good, match


def read_stars(
    files: StarFiles,
    vocabulary: Vocabulary,
    job: Job,
    count: RowCount | None = None,
    batch_rows: int = ROWS,
) -> Iterator[tuple[pa.RecordBatch, Tokens]]:
    """Yield screened batches with the tokens that a job reads of them.

    Parameters
    ----------
    files
        Spectra and auxiliary tables.
    vocabulary, job
        Define the tokens.
    count
        Counts the rows that are read and rejected.
    batch_rows
        Rows per batch that is read.
    """
    for good, match in batches(files, vocabulary, count, batch_rows):
        yield good, tokens(good, match, vocabulary, job)
