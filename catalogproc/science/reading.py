"""Files of spectra as a model reads them: screened batches, and their tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from catalogproc.catalog.rows.screen import Duplicates, screen
from catalogproc.features.tokens import READABLE, Tokens, tokens
from catalogproc.job import Job
from catalogproc.sources.gaia import open_companion
from catalogproc.sources.xp import read_spectra
from catalogproc.vocabulary import Vocabulary


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


def screened(files: Sequence[Path], vocabulary: Vocabulary) -> Iterator[pa.RecordBatch]:
    """The rows of files that a run would answer, in batches; the others are left out.

    Raises
    ------
    InputError
        A file cannot be read.
    ReleaseError
        Spectra of a release that the vocabulary does not have.
    """
    seen = Duplicates()
    for path in files:
        for batch in read_spectra(path):
            good, _ = screen(batch, vocabulary, seen, str(path))
            if good.num_rows:
                yield good


def read_stars(
    files: Sequence[Path], companion: Sequence[Path], vocabulary: Vocabulary, job: Job
) -> Iterator[tuple[pa.RecordBatch, Tokens]]:
    """Screened batches with what the job reads of them, a companion's columns among it."""
    with tempfile.TemporaryDirectory() as staging:
        beside = open_companion(companion, Path(staging)) if companion else None
        for good in screened(files, vocabulary):
            match = None if beside is None else beside.match(good.column("source_id"))
            yield good, tokens(good, match, vocabulary, job)
