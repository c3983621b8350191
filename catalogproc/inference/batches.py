"""The batches of a chunk: joined, predicted, and made rows of the catalog; halved if too large.

Memory that does not suffice, on the CPU or a GPU, costs time and no star: the batch is halved and
tried again, and later batches of the chunk are as small from the start.

With a GPU the steps are a pipeline: one thread reads and screens, several match and make the
features, one predicts, several make the rows, and the caller writes them, each on a batch of its
own. On a CPU the network needs all cores, and the steps follow each other in one thread.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from catalogproc.inference.chunk_rows import ChunkRows, Reading, screened_rows
from catalogproc.inference.stopwatch import Stopwatch
from catalogproc.io.ahead import ahead, mapped
from catalogproc.network.memory import is_out_of_memory, release_device_memory
from catalogproc.readers.content_hash import ContentHash
from catalogproc.readers.xp import BATCH_ROWS, CORRELATED_ROWS, split_own

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.inference.engine import Engine, ModelOutput
    from catalogproc.readers.chunks import Chunk
    from catalogproc.readers.gaia_source import AuxiliaryTable
    from catalogproc.readers.joined_rows import Joined

CPU_ROWS = 2048
"""Rows of a batch of a large network on the CPU: seconds of work, so that progress moves."""
LARGE_NETWORK = 2_000_000
"""Weights from which a network is large; batches of others are as large as on a GPU."""
SMALLEST = 64
"""A batch of at most so many rows is not halved."""
MOST_THREADS = 4
"""With a GPU, threads that make features, and that make rows. Some 15 batches are then in memory,
of up to 38 MB each."""


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
class _Inputs:
    """Rows of a batch, with what the model reads of them."""

    rows: ChunkRows
    joined: Joined | None
    tokens: Tokens


@dataclass(frozen=True)
class _Predicted(_Inputs):
    """A batch that is predicted."""

    output: ModelOutput


@dataclass(frozen=True)
class Batch:
    """A batch that is done: its rows, auxiliary columns, tokens, rows of the catalog and of the
    posterior, if there is one."""

    rows: ChunkRows
    joined: Joined | None
    tokens: Tokens
    catalog: pa.Table
    posterior: pa.Table | None


Given = TypeVar("Given", ChunkRows, _Inputs, _Predicted)
Made = TypeVar("Made")


def chunk_batches(
    engine: Engine, chunk: Chunk, gaia_source: AuxiliaryTable, work: Work
) -> Generator[Batch]:
    """Yield the batches of a chunk, done but not written, in the order of its rows.

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
    steps = _Steps(engine, gaia_source, work, _threads(engine))
    reading = Reading(_reads_correlations(engine), steps.limit)
    depth = min(1, steps.threads)
    vocabulary = engine.bundle.vocabulary
    read = screened_rows(chunk, vocabulary, reading, work.watch, work.content)
    # All threads have ended when the caller goes on, whatever happens.
    with (
        closing(ahead(read, depth)) as rows,
        closing(steps.inputs(rows)) as inputs,
        closing(ahead(steps.predicted(inputs), depth)) as predicted,
        closing(steps.batches(predicted)) as batches,
    ):
        yield from batches


@dataclass(frozen=True)
class _Steps:
    """What is done with each batch, step by step; a step that lacks memory gets halves."""

    engine: Engine
    gaia_source: AuxiliaryTable
    work: Work
    threads: int
    turn: Lock = field(default_factory=Lock)

    @property
    def limit(self) -> int:
        """Rows of a batch at most."""
        return max(_batch_rows(self.engine) >> self.work.halvings, SMALLEST)

    def inputs(self, every: Iterable[ChunkRows]) -> Generator[_Inputs]:
        """Match and make the features."""
        return self._each(self._inputs, every, lambda rows: self.inputs(rows.halves()))

    def predicted(self, every: Iterable[_Inputs]) -> Generator[_Predicted]:
        """Predict, one batch at a time."""
        steps = replace(self, threads=0)
        return steps._each(
            self._predicted, every, lambda one: steps.predicted(steps.inputs(one.rows.halves()))
        )

    def batches(self, every: Iterable[_Predicted]) -> Generator[Batch]:
        """Make the rows of the catalog."""

        def again(one: _Predicted) -> Generator[Batch]:
            return self.batches(self.predicted(self.inputs(one.rows.halves())))

        return self._each(self._batch, every, again)

    def _each(
        self,
        step: Callable[[Given], Made],
        every: Iterable[Given],
        again: Callable[[Given], Iterable[Made]],
    ) -> Generator[Made]:
        """Yield what a step makes of each batch; ``again`` makes it of one that is too large."""

        def tried(given: Given) -> tuple[Given, Made | None]:
            return given, self._within_memory(step, given)

        with closing(mapped(tried, every, self.threads)) as results:
            for given, found in results:
                if found is None:
                    yield from again(given)
                else:
                    yield found

    def _within_memory(self, step: Callable[[Given], Made], given: Given) -> Made | None:
        """Return what a step makes, None where memory does not suffice or did not for others."""
        rows = given if isinstance(given, ChunkRows) else given.rows
        size = rows.good.num_rows
        if size > self.limit:
            return None
        try:
            return step(given)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if size <= SMALLEST:
                raise MemoryError(f"for {size} stars: {error}") from None
        # Here the error is gone, and with it what its frames held.
        with self.turn:
            while _batch_rows(self.engine) >> self.work.halvings >= size:
                self.work.halvings += 1
        gc.collect()
        release_device_memory()
        return None

    def _inputs(self, rows: ChunkRows) -> _Inputs:
        watch = self.work.watch
        with watch.time("match"):
            joined = _auxiliary(self.gaia_source, rows.good)
        with watch.time("features"):
            tokens = _features(self.engine, rows.good, joined)
            readable = np.asarray(np.isfinite(tokens.values).any(axis=1))
            if not readable.all():
                rows = rows.without_tokens(readable, np.isfinite(tokens.g_flux))
                joined = _auxiliary(self.gaia_source, rows.good)  # counts what is written
                tokens = _features(self.engine, rows.good, joined)
        return _Inputs(rows, joined, tokens)

    def _predicted(self, one: _Inputs) -> _Predicted:
        with self.work.watch.time("predict"):
            return _Predicted(**vars(one), output=self.engine.predict(one.tokens))

    def _batch(self, one: _Predicted) -> Batch:
        source_ids = one.rows.good.column("source_id")
        with self.work.watch.time("rows"):
            catalog = self.engine.to_catalog(source_ids, one.tokens, one.output)
            posterior = self.engine.to_posterior(source_ids, one.tokens, one.output)
        return Batch(one.rows, one.joined, one.tokens, catalog, posterior)


def _threads(engine: Engine) -> int:
    """Return the threads of a step: 0 on a CPU, those that torch may use with a GPU."""
    import torch

    return 0 if engine.device == "cpu" else min(torch.get_num_threads(), MOST_THREADS)


def _batch_rows(engine: Engine) -> int:
    """Return the rows of a batch where memory suffices."""
    slow = engine.device == "cpu" and engine.bundle.shape.weights >= LARGE_NETWORK
    rows = CPU_ROWS if slow else BATCH_ROWS
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
