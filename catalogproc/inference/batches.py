"""The batches of a chunk: joined, predicted, and made rows of the catalog; halved if too large.

Memory that does not suffice, on the CPU or a GPU, costs time and no star: the batch is halved and
tried again, and later batches of the chunk are as small from the start.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc.inference.chunk_rows import ChunkRows, Reading, screened_rows
from catalogproc.inference.stopwatch import Stopwatch
from catalogproc.network.memory import is_out_of_memory, release_device_memory
from catalogproc.readers.content_hash import ContentHash
from catalogproc.readers.xp import BATCH_ROWS, CORRELATED_ROWS, split_own

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.inference.engine import Engine
    from catalogproc.readers.chunks import Chunk
    from catalogproc.readers.gaia_source import AuxiliaryTable
    from catalogproc.readers.joined_rows import Joined

CPU_ROWS = 2048
"""Rows of a batch on the CPU: seconds of work, so that progress moves."""
SMALLEST = 64
"""A batch of at most so many rows is not halved."""


@dataclass
class Work:
    """What is measured and found out while a chunk is processed.

    Attributes
    ----------
    watch
        Measures the stages.
    content
        Hashes what is read.
    halvings
        How often the batch was halved because memory did not suffice.
    """

    watch: Stopwatch = field(default_factory=Stopwatch)
    content: ContentHash = field(default_factory=ContentHash)
    halvings: int = 0


@dataclass(frozen=True)
class Batch:
    """A batch that is done: its rows, auxiliary columns, tokens, rows of the catalog and of the
    posterior, if there is one."""

    rows: ChunkRows
    joined: Joined | None
    tokens: Tokens
    catalog: pa.Table
    posterior: pa.Table | None


def chunk_batches(
    engine: Engine, chunk: Chunk, gaia_source: AuxiliaryTable, work: Work
) -> Iterator[Batch]:
    """Yield the batches of a chunk, done but not written.

    Parameters
    ----------
    engine, chunk
        The model with the job; which rows of which files.
    gaia_source
        The auxiliary tables.
    work
        Is told of what is measured; batches begin as small as its ``halvings`` say.

    Raises
    ------
    InputError
        A file cannot be read.
    MemoryError
        Memory does not suffice for SMALLEST rows.
    """
    largest = _batch_rows(engine)
    reading = Reading(_reads_correlations(engine), max(largest >> work.halvings, SMALLEST))
    vocabulary = engine.bundle.vocabulary
    for rows in screened_rows(chunk, vocabulary, reading, work.watch, work.content):
        waiting = deque([rows])
        while waiting:
            rows = waiting.popleft()
            if rows.good.num_rows > max(largest >> work.halvings, SMALLEST):
                waiting.extendleft(reversed(rows.halves()))
                continue
            batch = _processed(engine, rows, gaia_source, work.watch)
            if batch is not None:
                yield batch
                continue
            work.halvings += 1
            while largest >> work.halvings >= rows.good.num_rows:
                work.halvings += 1  # a batch that was small anyhow
            waiting.appendleft(rows)
            gc.collect()
            release_device_memory()


def _processed(
    engine: Engine, rows: ChunkRows, gaia_source: AuxiliaryTable, watch: Stopwatch
) -> Batch | None:
    """Return a batch, None where memory does not suffice for it."""
    try:
        return _batch(engine, rows, gaia_source, watch)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if rows.good.num_rows <= SMALLEST:
            raise MemoryError(f"for {rows.good.num_rows} stars: {error}") from None
    # Here the error is gone, and with it what its frames held.
    return None


def _batch(engine: Engine, rows: ChunkRows, gaia_source: AuxiliaryTable, watch: Stopwatch) -> Batch:
    with watch.time("match"):
        joined = _auxiliary(gaia_source, rows.good)
    with watch.time("features"):
        tokens = _features(engine, rows.good, joined)
        readable = np.asarray(np.isfinite(tokens.values).any(axis=1))
        if not readable.all():
            rows = rows.without_tokens(readable, np.isfinite(tokens.g_flux))
            joined = _auxiliary(gaia_source, rows.good)  # counts what is written
            tokens = _features(engine, rows.good, joined)
    with watch.time("predict"):
        output = engine.predict(tokens)
    with watch.time("rows"):
        catalog = engine.to_catalog(rows.good.column("source_id"), tokens, output)
        posterior = engine.to_posterior(rows.good.column("source_id"), tokens, output)
    return Batch(rows, joined, tokens, catalog, posterior)


def _batch_rows(engine: Engine) -> int:
    """Return the rows of a batch where memory suffices."""
    rows = CPU_ROWS if engine.device == "cpu" else BATCH_ROWS
    return min(rows, CORRELATED_ROWS) if _reads_correlations(engine) else rows


def _auxiliary(gaia_source: AuxiliaryTable, spectra: pa.RecordBatch) -> Joined | None:
    """Return the auxiliary columns of the stars; None where there are none at all."""
    _, own = split_own(spectra)
    if own is None and not gaia_source.files:
        return None
    return gaia_source.join(spectra.column("source_id"), own)


def _features(engine: Engine, spectra: pa.RecordBatch, joined: Joined | None) -> Tokens:
    return engine.features(split_own(spectra)[0], None if joined is None else joined.rows)


def _reads_correlations(engine: Engine) -> bool:
    """Return whether the correlations of coefficients are needed."""
    method = engine.job.propagation_of(engine.bundle.reads_errors)
    return engine.job.correlations and method in ("first_order", "sampled")
