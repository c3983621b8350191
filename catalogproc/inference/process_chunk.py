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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
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
from catalogproc.errors import CountError, InputError, plural
from catalogproc.features.tokens import reads_parallax
from catalogproc.inference.batches import Batch, Work, chunk_batches
from catalogproc.inference.catalog_columns import INDEPENDENT
from catalogproc.inference.input_flags import zero_point_differences
from catalogproc.io.parquet_writer import Part, PartWriter
from catalogproc.io.staging import named
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.gaia_source import NO_TABLES
from catalogproc.rundir.receipts import FileRows, Receipt, write_receipt

if TYPE_CHECKING:
    from catalogproc.inference.engine import Engine
    from catalogproc.readers.chunks import Chunk
    from catalogproc.readers.gaia_source import AuxiliaryTable
    from catalogproc.readers.pieces import Piece

LIBRARIES = ("torch", "numpy", "pyarrow", "astropy")
_ASKED_AT_ONCE = 16
"""Number of small files of a chunk that are looked up at the same time: each asks a store."""


@dataclass(frozen=True)
class ChunkWorker:
    """Who processes a chunk.

    Attributes
    ----------
    name, device
        For the receipt; the device is the engine's if empty.
    progress
        Called with the number of rows of each batch when it is done.
    halvings
        How often the batch is halved before the chunk begins.
    """

    name: str = ""
    device: str = ""
    progress: Callable[[int], None] | None = None
    halvings: int = 0


CALLER = ChunkWorker()
"""The process that calls :func:`process_chunk`, without a name."""


def process_chunk(
    engine: Engine,
    chunk: Chunk,
    gaia_source: AuxiliaryTable | None,
    output: Path,
    worker: ChunkWorker = CALLER,
) -> Receipt:
    """Turn one chunk of the input into its parts of the catalog and a receipt.

    Parameters
    ----------
    engine, chunk
        The model with the job; which rows of which files, with the files' fingerprints.
    gaia_source
        The gaia_source table; None if the run has none.
    output
        The run folder. Written are ``catalog/<file>-<chunk>.parquet``, of the same name
        ``posterior/`` if the job asks for it and ``rejected/`` if any row is rejected, then the
        receipt.
    worker
        Who processes the chunk.

    Raises
    ------
    InputError
        A file cannot be read, or is not, or is no longer, the one that was planned.
    CountError, CatalogprocError
        Rows read and rows written disagree; the parts cannot be written.
    """
    work, parts = Work(halvings=worker.halvings), _Parts(engine, chunk, output)
    watch = work.watch
    _check_fingerprints(chunk.pieces, "is not the one that the run was planned with")
    try:
        with parts.catalog, parts.rejected, parts.posterior or nullcontext():
            # Closed before anything is removed: it may have threads.
            with closing(chunk_batches(engine, chunk, gaia_source or NO_TABLES, work)) as batches:
                for batch in batches:
                    with watch.time("write"):
                        parts.write(batch)
                    if worker.progress is not None:
                        worker.progress(int(batch.rows.read.sum()))
            work.content.wait()
            _check_fingerprints(chunk.pieces, "was changed while it was read")
            _check_counts(chunk, parts)
            written = time.perf_counter()
        watch.seconds["write"] += time.perf_counter() - written
        receipt = _receipt(engine, chunk, parts, worker, work)
        write_receipt(output, receipt)
        return receipt
    except BaseException:
        parts.remove()
        raise


class _Parts:
    """The output files of a chunk, and the counts of its rows.

    ``read`` and ``written`` count the rows (P,) of each piece.
    """

    def __init__(self, engine: Engine, chunk: Chunk, output: Path) -> None:
        stem = f"{chunk.pieces[0].file.name.split('.')[0]}-{chunk.id[:8]}"
        metadata = _metadata(engine, chunk)
        self.output = output
        self.rows_matched = 0
        self.read = np.zeros(len(chunk.pieces), np.int64)
        self.written = np.zeros(len(chunk.pieces), np.int64)
        self.reasons: Counter[str] = Counter()
        self.auxiliary: dict[str, Counter[str]] = {}
        self.zero_points: Counter[str] = Counter()
        self.catalog = PartWriter(output, stem, load_contract("catalog"), metadata)
        self.rejected = PartWriter(
            output, stem, load_contract("rejected"), metadata, allow_empty=False
        )
        self.posterior = (
            PartWriter(output, stem, load_contract("posterior"), metadata)
            if engine.job.posterior
            else None
        )

    def write(self, batch: Batch) -> None:
        """Write a batch, and add up its counts."""
        rows = batch.rows
        self.catalog.write(batch.catalog)
        if self.posterior is not None and batch.posterior is not None:
            self.posterior.write(batch.posterior)
        if rows.rejected.num_rows:
            self.rejected.write(rows.rejected)
            self.reasons.update(_counts(rows.rejected.column("reason")))
        self.read += rows.read
        self.written += np.bincount(rows.good_pieces, minlength=len(self.written))
        self.zero_points.update(zero_point_differences(batch.tokens))
        if batch.joined is not None:
            self.rows_matched += int(batch.joined.found.sum())
            for table, counts in batch.joined.account.items():
                self.auxiliary.setdefault(table, Counter()).update(counts)

    @property
    def posterior_part(self) -> Part | None:
        """The finished part of the posterior, if the job asks for one."""
        return None if self.posterior is None else self.posterior.part

    def remove(self) -> None:
        """Remove the files that have their final names."""
        for part in (self.catalog.part, self.rejected.part, self.posterior_part):
            if part is not None:
                (self.output / part.path).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return versions of catalogproc, Python and the libraries that determine the numbers."""
    found = {"catalogproc": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in LIBRARIES}


def _metadata(engine: Engine, chunk: Chunk) -> dict[str, str]:
    """Return the metadata of a part."""
    bundle = engine.bundle
    stated = {
        "catalogproc": __version__,
        "model": bundle.name,
        "model_hash": bundle.hash,
        "model_training": json.dumps(dict(bundle.training), sort_keys=True, default=str),
        "job": json.dumps(engine.job.to_dict(), sort_keys=True),
        "job_hash": engine.job.hash,
        "run_id": engine.run_id,
        "chunk": chunk.id,
        "input": chunk.pieces[0].file.name,
        "input_fingerprint": chunk.pieces[0].fingerprint,
        **bundle.release.facts,
    }
    if reads_parallax(engine.job):
        stated["predicted_without_parallax"] = ", ".join(INDEPENDENT)
    if len(chunk.pieces) > 1:
        files = [{"name": one.file.name, "fingerprint": one.fingerprint} for one in chunk.pieces]
        stated["input_files"] = json.dumps(files)
    return stated


def _check_fingerprints(pieces: Sequence[Piece], problem: str) -> None:
    """Raise InputError unless the files are those that were planned."""
    with ThreadPoolExecutor(min(len(pieces), _ASKED_AT_ONCE)) as pool:
        prints = pool.map(fingerprint, [piece.file for piece in pieces])
        for piece, found in zip(pieces, prints, strict=True):
            if found == piece.fingerprint:
                continue
            raise InputError(
                f"the input file {problem}",
                wanted=f"fingerprint {piece.fingerprint[:16]}…",
                found=f"{found[:16]}…",
                where=piece.file,
                advice="let nothing write to the input while a run reads it; start again with a "
                "new --output to use the file as it is now",
            )


def _check_counts(chunk: Chunk, parts: _Parts) -> None:
    """Raise CountError unless every row of each file, as it counts them, is accounted for."""
    for piece, read in zip(chunk.pieces, parts.read, strict=True):
        if piece.rows is not None and read != piece.rows:
            raise CountError(
                "the file has another number of rows than it says",
                wanted=f"{plural(piece.rows, 'row')} of the input",
                found=f"{read} read",
                where=f"{piece.file}, chunk {chunk.id[:8]} from row {piece.first_row}",
            )
    read, written, rejected = parts.read.sum(), parts.catalog.rows, parts.rejected.rows
    posterior = written if parts.posterior is None else parts.posterior.rows
    if written + rejected != read or not written == parts.written.sum() == posterior:
        raise CountError(
            "rows in and rows out disagree",
            wanted=f"{plural(read, 'row')} of the input",
            found=f"{written} written + {rejected} rejected = {written + rejected}",
            where=f"{chunk.pieces[0].file}, chunk {chunk.id[:8]}",
        )


def _receipt(
    engine: Engine, chunk: Chunk, parts: _Parts, worker: ChunkWorker, work: Work
) -> Receipt:
    counts = zip(parts.read.tolist(), parts.written.tolist(), strict=True)
    files = tuple(
        FileRows(named(piece.file), piece.fingerprint, piece.first_row, *rows)
        for piece, rows in zip(chunk.pieces, counts, strict=True)
    )
    catalog, rejected = parts.catalog, parts.rejected
    return Receipt(
        chunk_id=chunk.id,
        file=files[0].file,
        first_row=files[0].first_row,
        rows_read=int(parts.read.sum()),
        rows_written=catalog.rows,
        rows_rejected=rejected.rows,
        rejected_by_reason=dict(sorted(parts.reasons.items())),
        rows_matched=parts.rows_matched,
        auxiliary={table: dict(counts) for table, counts in parts.auxiliary.items()},
        zero_point_differences=dict(sorted(parts.zero_points.items())),
        job_hash=engine.job.hash,
        bundle_hash=engine.bundle.hash,
        input_fingerprint=files[0].fingerprint,
        input_sha256=work.content.hexdigest(),
        catalog_part=_path(catalog.part),
        catalog_sha256=_sha256(catalog.part),
        rejected_part=_path(rejected.part),
        rejected_sha256=_sha256(rejected.part),
        device=worker.device or engine.device,
        worker=worker.name,
        host=socket.gethostname(),
        versions=versions(),
        started=work.watch.started.isoformat(),
        finished=datetime.now(UTC).isoformat(),
        seconds=work.watch.elapsed(),
        stage_seconds=work.watch.seconds,
        files=files if len(files) > 1 else (),
        memory_halvings=work.halvings,
        precision=engine.precision,
        posterior_part=_path(parts.posterior_part),
        posterior_sha256=_sha256(parts.posterior_part),
    )


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in values.value_counts().to_pylist()}


def _path(part: Part | None) -> str:
    return "" if part is None else part.path


def _sha256(part: Part | None) -> str:
    return "" if part is None else part.sha256
