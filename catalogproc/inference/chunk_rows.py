"""The rows of a chunk: read from its files and screened, in batches of one size.

Small files share batches, because the network predicts a thousand stars in little more time than
one. Each row keeps the number of its piece, so that rows are counted by file.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.errors import masked
from catalogproc.inference.screening import Duplicates, Mask, screen, screen_tokens
from catalogproc.io.staging import named
from catalogproc.readers.pieces import source_ids_before, spectra

if TYPE_CHECKING:
    from catalogproc.inference.stopwatch import Stopwatch
    from catalogproc.readers.chunks import Chunk
    from catalogproc.readers.content_hash import ContentHash
    from catalogproc.readers.pieces import Piece
    from catalogproc.vocabulary import Vocabulary

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ChunkRows:
    """Consecutive rows of a chunk after screening.

    Attributes
    ----------
    files
        Names (P,) of the chunk's files as rejected rows state them, by number of the piece.
    read
        Number of rows (P,) that were read of each piece.
    good, good_pieces
        The N accepted rows, of the contract xp_continuous, and the numbers of their pieces.
    rejected, rejected_pieces
        The M rejected rows, of the contract rejected, and the numbers of their pieces.
    """

    files: Sequence[str]
    read: Index
    good: pa.RecordBatch
    good_pieces: Index
    rejected: pa.Table
    rejected_pieces: Index

    def halves(self) -> tuple[ChunkRows, ChunkRows]:
        """Return the rows as two batches of half of the accepted ones.

        What was read and rejected is counted with the first half.
        """
        half = len(self.good_pieces) // 2
        first = replace(self, good=self.good.slice(0, half), good_pieces=self.good_pieces[:half])
        second = replace(
            self,
            read=np.zeros_like(self.read),
            good=self.good.slice(half),
            good_pieces=self.good_pieces[half:],
            rejected=self.rejected.slice(0, 0),
            rejected_pieces=self.rejected_pieces[:0],
        )
        return first, second

    def without_tokens(self, readable: Mask, g_known: Mask) -> ChunkRows:
        """Return the rows, those without any token among the rejected ones.

        Parameters
        ----------
        readable, g_known
            As of :func:`~catalogproc.inference.screening.screen_tokens` (N,).
        """
        files = pa.array(self.files).take(pa.array(self.good_pieces))
        good, without = screen_tokens(self.good, readable, g_known, files)
        rejected = pa.concat_tables([self.rejected, without])
        pieces = np.concatenate([self.rejected_pieces, self.good_pieces[~readable]])
        order = np.lexsort((rejected.column("row").to_numpy(), pieces))
        return replace(
            self,
            good=good,
            good_pieces=self.good_pieces[readable],
            rejected=rejected.take(pa.array(order)),
            rejected_pieces=pieces[order],
        )


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes
    ----------
    correlations
        Whether the correlations of coefficients are read.
    batch_rows
        Rows of a batch.
    """

    correlations: bool
    batch_rows: int


@dataclass
class _Held:
    """Screened rows that wait until there are enough for a batch."""

    files: Sequence[str]
    rows: int = 0
    parts: list[tuple[int, int, pa.RecordBatch, pa.Table]] = field(default_factory=list)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the held rows."""
        return self.parts[0][2].schema

    def add(self, number: int, rows: int, good: pa.RecordBatch, rejected: pa.Table) -> None:
        """Add rows of the piece ``number``."""
        self.rows += rows
        self.parts.append((number, rows, good, rejected))

    def take(self) -> ChunkRows:
        """Return all rows, and hold none."""
        pieces, counts, good, rejected = zip(*self.parts, strict=True)
        read = np.zeros(len(self.files), np.int64)
        np.add.at(read, list(pieces), counts)
        numbers = np.array(pieces, np.int64)
        taken = ChunkRows(
            self.files,
            read,
            pa.concat_batches(good) if len(good) > 1 else good[0],
            np.repeat(numbers, [len(one) for one in good]),
            pa.concat_tables(rejected),
            np.repeat(numbers, [len(one) for one in rejected]),
        )
        self.rows, self.parts = 0, []
        return taken


def screened_rows(
    chunk: Chunk,
    vocabulary: Vocabulary,
    reading: Reading,
    watch: Stopwatch,
    content: ContentHash,
) -> Generator[ChunkRows]:
    """Yield the rows of a chunk in batches, in the order of its files.

    Parameters
    ----------
    chunk
        Which rows of which files.
    vocabulary
        It defines how many coefficients a band has.
    reading
        How many rows are read at once, and whether with correlations.
    watch
        Measures the stages ``read`` and ``screen``.
    content
        Hashes what is read.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    limit = reading.batch_rows
    held = _Held([masked(named(piece.file)) for piece in chunk.pieces])
    for number, piece in enumerate(chunk.pieces):
        with watch.time("read"):
            seen = Duplicates(_identifiers_before(piece))
            drawn = spectra(
                content.hearing(piece),
                correlations=reading.correlations,
                batch_rows=limit,
                own=True,
                release=vocabulary.data_release,
            )
            batches = iter(drawn)
        while True:
            with watch.time("read"):
                batch = next(batches, None)
            if batch is None:
                break
            with watch.time("screen"):
                good, rejected = screen(batch, vocabulary, seen, held.files[number])
            if held.parts and held.schema != good.schema:
                yield held.take()  # files with other columns beside the spectra
            held.add(number, batch.num_rows, good, rejected)
            if held.rows >= limit:
                yield held.take()
        with watch.time("read"):
            content.finish(piece)
    if held.parts:
        yield held.take()


def _identifiers_before(piece: Piece) -> NDArray[np.int64]:
    known = source_ids_before(piece).drop_null()
    return np.asarray(known.to_numpy(zero_copy_only=False), dtype=np.int64)
