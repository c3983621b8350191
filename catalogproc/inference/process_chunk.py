"""Process one chunk of the input: read, screen, predict, write parts, count rows, write a receipt.

Spectra are processed in batches, so memory does not grow with the chunk. Parts are renamed to
their final names only when every row is accounted for; the receipt is written last. If anything
fails, neither a part nor a receipt is left.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc import __version__
from catalogproc.contract import load_contract
from catalogproc.errors import CountError, InputError, masked
from catalogproc.inference.input_flags import zero_point_differences
from catalogproc.inference.screening import Duplicates, screen, screen_tokens
from catalogproc.io.parquet_writer import Part, PartWriter
from catalogproc.io.staging import named
from catalogproc.readers import chunks
from catalogproc.readers.gaia_source import NO_TABLES
from catalogproc.readers.xp import split_own
from catalogproc.rundir.receipts import Receipt, write_receipt

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.inference.engine import Engine
    from catalogproc.readers.chunks import Chunk
    from catalogproc.readers.gaia_source import AuxiliaryTable
    from catalogproc.readers.joined_rows import Joined

STAGES = ("read", "screen", "match", "features", "predict", "rows", "write")
LIBRARIES = ("torch", "numpy", "pyarrow", "astropy")


class Stopwatch:
    """Wall time since its creation, in all and by stage, in seconds."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._begin = time.perf_counter()

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage.

        Parameters
        ----------
        stage
            One of :data:`STAGES`.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def elapsed(self) -> float:
        """Return the time since the creation."""
        return time.perf_counter() - self._begin


@dataclass(frozen=True)
class ChunkWorker:
    """Who processes a chunk.

    Attributes
    ----------
    name, device
        For the receipt; the device is the engine's if empty.
    progress
        Called with the number of rows of each batch when it is done.
    """

    name: str = ""
    device: str = ""
    progress: Callable[[int], None] | None = None


CALLER = ChunkWorker()
"""The process that calls :func:`process_chunk`, without a name."""


def process_chunk(
    engine: Engine,
    chunk: Chunk,
    gaia_source: AuxiliaryTable | None,
    output: Path,
    worker: ChunkWorker = CALLER,
) -> Receipt:
    """Turn one chunk of an input file into its parts of the catalog and a receipt.

    Parameters
    ----------
    engine, chunk
        The model with the job; which rows of which file, with the file's fingerprint.
    gaia_source
        The gaia_source table; None if the run has none.
    output
        The run folder. Written are ``catalog/<file>-<chunk>.parquet``, and ``rejected/`` of
        the same name if any row is rejected, then the receipt.
    worker
        Who processes the chunk.

    Raises
    ------
    InputError
        The file cannot be read, or is not, or is no longer, the one that was planned.
    CountError, CatalogprocError
        Rows read and rows written disagree; the parts cannot be written.
    """
    watch, parts = Stopwatch(), _Parts(engine, chunk, output)
    _check_fingerprint(chunk, "is not the one that the run was planned with")
    try:
        with parts.catalog, parts.rejected:
            for batch in _stream(engine, chunk, gaia_source or NO_TABLES, watch):
                with watch.time("write"):
                    parts.write(batch)
                if worker.progress is not None:
                    worker.progress(batch.rows_read)
            _check_fingerprint(chunk, "was changed while it was read")
            with watch.time("read"):
                parts.input_sha256 = chunks.content_sha256(chunk)
            _check_counts(chunk, parts)
            closing = time.perf_counter()
        watch.seconds["write"] += time.perf_counter() - closing
        receipt = _receipt(engine, chunk, parts, worker, watch)
        write_receipt(output, receipt)
        return receipt
    except BaseException:
        parts.remove()
        raise


@dataclass(frozen=True)
class _Batch:
    """A batch that is done: rows read, auxiliary columns, tokens, rows of both output files."""

    rows_read: int
    joined: Joined | None
    tokens: Tokens
    rows: pa.Table
    rejected: pa.Table


class _Parts:
    """The output files of a chunk, and the counts of its rows."""

    def __init__(self, engine: Engine, chunk: Chunk, output: Path) -> None:
        stem = f"{Path(chunk.file).name.split('.')[0]}-{chunk.id[:8]}"
        metadata = _metadata(engine, chunk)
        self.output = output
        self.rows_read = self.rows_matched = 0
        self.reasons: Counter[str] = Counter()
        self.auxiliary: dict[str, Counter[str]] = {}
        self.zero_points: Counter[str] = Counter()
        self.input_sha256 = ""
        self.catalog = PartWriter(output, stem, load_contract("catalog"), metadata)
        self.rejected = PartWriter(
            output, stem, load_contract("rejected"), metadata, allow_empty=False
        )

    def write(self, batch: _Batch) -> None:
        """Write a batch, and add up its counts."""
        self.catalog.write(batch.rows)
        if batch.rejected.num_rows:
            self.rejected.write(batch.rejected)
            self.reasons.update(_counts(batch.rejected.column("reason")))
        self.rows_read += batch.rows_read
        self.zero_points.update(zero_point_differences(batch.tokens))
        if batch.joined is not None:
            self.rows_matched += int(batch.joined.found.sum())
            for table, counts in batch.joined.account.items():
                self.auxiliary.setdefault(table, Counter()).update(counts)

    def remove(self) -> None:
        """Remove the files that have their final names."""
        for part in (self.catalog.part, self.rejected.part):
            if part is not None:
                (self.output / part.path).unlink(missing_ok=True)


def _stream(
    engine: Engine, chunk: Chunk, gaia_source: AuxiliaryTable, watch: Stopwatch
) -> Iterator[_Batch]:
    """Yield the batches of a chunk, done but not written."""
    with watch.time("read"):
        seen = Duplicates(_identifiers(chunks.source_ids_before(chunk)))
        batches = iter(chunks.spectra(chunk, correlations=_reads_correlations(engine), own=True))
    file = masked(named(chunk.file))
    while True:
        with watch.time("read"):
            batch = next(batches, None)
        if batch is None:
            return
        with watch.time("screen"):
            good, rejected = screen(batch, engine.bundle.vocabulary, seen, file)
        with watch.time("match"):
            joined = _auxiliary(gaia_source, good)
        with watch.time("features"):
            tokens = _features(engine, good, joined)
            readable = np.asarray(np.isfinite(tokens.values).any(axis=1))
            if not readable.all():
                g_known = np.isfinite(tokens.g_flux)
                good, without = screen_tokens(good, readable, g_known, file)
                rejected = pa.concat_tables([rejected, without]).sort_by("row")
                joined = _auxiliary(gaia_source, good)  # counts what is written
                tokens = _features(engine, good, joined)
        with watch.time("predict"):
            output = engine.predict(tokens)
        with watch.time("rows"):
            rows = engine.to_catalog(good.column("source_id"), tokens, output)
        yield _Batch(batch.num_rows, joined, tokens, rows, rejected)


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
    return engine.job.correlations and engine.job.propagation != "none"


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return versions of catalogproc, Python and the libraries that determine the numbers."""
    found = {"catalogproc": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in LIBRARIES}


def _metadata(engine: Engine, chunk: Chunk) -> dict[str, str]:
    """Return the metadata of a part."""
    bundle = engine.bundle
    return {
        "catalogproc": __version__,
        "model": bundle.name,
        "model_hash": bundle.hash,
        "model_training": json.dumps(dict(bundle.training), sort_keys=True, default=str),
        "job": json.dumps(engine.job.to_dict(), sort_keys=True),
        "job_hash": engine.job.hash,
        "run_id": engine.run_id,
        "chunk": chunk.id,
        "input": Path(chunk.file).name,
        "input_fingerprint": chunk.fingerprint,
    }


def _check_fingerprint(chunk: Chunk, problem: str) -> None:
    """Raise InputError unless the file is the one that was planned."""
    found = chunks.fingerprint(Path(chunk.file))
    if found != chunk.fingerprint:
        raise InputError(
            f"the input file {problem}",
            wanted=f"fingerprint {chunk.fingerprint[:16]}…",
            found=f"{found[:16]}…",
            where=chunk.file,
            advice="let nothing write to the input while a run reads it; start again with a "
            "new --output to use the file as it is now",
        )


def _check_counts(chunk: Chunk, parts: _Parts) -> None:
    """Raise CountError unless every row of the chunk, as the file counts them, is accounted for."""
    read, written, rejected = parts.rows_read, parts.catalog.rows, parts.rejected.rows
    wanted = read if chunk.rows is None else chunk.rows
    if read != wanted or written + rejected != wanted:
        raise CountError(
            "rows in and rows out disagree",
            wanted=f"{wanted} rows of the input",
            found=f"{read} read, {written} written + {rejected} rejected = {written + rejected}",
            where=f"{chunk.file}, chunk {chunk.id[:8]} from row {chunk.first_row}",
        )


def _receipt(
    engine: Engine, chunk: Chunk, parts: _Parts, worker: ChunkWorker, watch: Stopwatch
) -> Receipt:
    catalog, rejected = parts.catalog, parts.rejected
    return Receipt(
        chunk_id=chunk.id,
        file=named(chunk.file),
        first_row=chunk.first_row,
        rows_read=parts.rows_read,
        rows_written=catalog.rows,
        rows_rejected=rejected.rows,
        rejected_by_reason=dict(sorted(parts.reasons.items())),
        rows_matched=parts.rows_matched,
        auxiliary={table: dict(counts) for table, counts in parts.auxiliary.items()},
        zero_point_differences=dict(sorted(parts.zero_points.items())),
        job_hash=engine.job.hash,
        bundle_hash=engine.bundle.hash,
        input_fingerprint=chunk.fingerprint,
        input_sha256=parts.input_sha256,
        catalog_part=_path(catalog.part),
        catalog_sha256=_sha256(catalog.part),
        rejected_part=_path(rejected.part),
        rejected_sha256=_sha256(rejected.part),
        device=worker.device or engine.device,
        worker=worker.name,
        host=socket.gethostname(),
        versions=versions(),
        started=watch.started.isoformat(),
        finished=datetime.now(UTC).isoformat(),
        seconds=watch.elapsed(),
        stage_seconds=watch.seconds,
    )


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in values.value_counts().to_pylist()}


def _identifiers(column: pa.Array | pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(column.drop_null().to_numpy(zero_copy_only=False), dtype=np.int64)


def _path(part: Part | None) -> str:
    return "" if part is None else part.path


def _sha256(part: Part | None) -> str:
    return "" if part is None else part.sha256
