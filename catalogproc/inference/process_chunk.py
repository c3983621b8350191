"""One chunk of the input: read, screened, answered, written, counted, and signed for.

Spectra pass through in batches, so memory does not grow with the chunk. Parts get their
names only when every row is accounted for; the receipt comes last. Whatever goes wrong on
the way, no part and no receipt remain.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from catalogproc.inference.screening import Duplicates, screen, screen_tokens
from catalogproc.io.parquet_writer import Part, PartWriter
from catalogproc.io.remote import named
from catalogproc.readers import chunks
from catalogproc.rundir.receipts import Receipt, write_receipt

if TYPE_CHECKING:
    from catalogproc.inference.engine import Engine
    from catalogproc.readers.chunks import Chunk
    from catalogproc.readers.gaia_source import Companion

STAGES = ("read", "screen", "match", "features", "predict", "rows", "write")
LIBRARIES = ("torch", "numpy", "pyarrow", "astropy")


class Stopwatch:
    """Wall time by stage, in seconds."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


def process_chunk(
    engine: Engine,
    chunk: Chunk,
    companion: Companion | None,
    output: Path,
    worker: str = "",
    device: str = "",
    progress: Callable[[int], None] | None = None,
) -> Receipt:
    """Turn one chunk of an input file into its parts of the catalog, and sign for it.

    Parameters
    ----------
    engine
        The model and the job.
    chunk
        Which rows of which file, and the fingerprint that the file must have.
    companion
        Where gaia_source columns are found; None where the run has none.
    output
        The run's folder. Written are ``catalog/<file>-<chunk>.parquet``, and
        ``rejected/`` of the same name if any row is rejected, then the receipt.
    worker, device
        Names for the receipt; the device is the engine's where none is given.
    progress
        Called with the number of rows of each batch when it is done.

    Raises
    ------
    InputError
        The file cannot be read, or is not, or is no longer, the one that was planned.
    CountError
        Rows in the input and rows written and rejected disagree.
    CatalogprocError
        The parts cannot be written.
    """
    started, watch = datetime.now(UTC), Stopwatch()
    begin = time.perf_counter()
    stem = f"{Path(chunk.file).name.split('.')[0]}-{chunk.id[:8]}"
    described = _metadata(engine, chunk)
    reasons: Counter[str] = Counter()
    rows_read = 0
    catalog = PartWriter(output, "catalog", stem, load_contract("catalog"), described)
    rejected = PartWriter(
        output, "rejected", stem, load_contract("rejected"), described, allow_empty=False
    )
    _check_fingerprint(chunk, "is not the one that the run was planned with")
    try:
        with catalog, rejected:
            for count, answered, refused in _stream(engine, chunk, companion, watch):
                with watch.time("write"):
                    catalog.write(answered)
                    if refused.num_rows:
                        rejected.write(refused)
                        reasons.update(_counts(refused.column("reason")))
                rows_read += count
                if progress is not None:
                    progress(count)
            _check_fingerprint(chunk, "was changed while it was read")
            with watch.time("read"):
                content = chunks.content_sha256(chunk)
            _check_counts(chunk, rows_read, catalog.rows, rejected.rows)
            closing = time.perf_counter()
        watch.seconds["write"] += time.perf_counter() - closing
        receipt = Receipt(
            chunk_id=chunk.id,
            file=named(chunk.file),
            first_row=chunk.first_row,
            rows_read=rows_read,
            rows_written=catalog.rows,
            rows_rejected=rejected.rows,
            rejected_by_reason=dict(sorted(reasons.items())),
            job_hash=engine.job.hash,
            bundle_hash=engine.bundle.hash,
            input_fingerprint=chunk.fingerprint,
            input_sha256=content,
            catalog_part=_path(catalog.part),
            catalog_sha256=_sha256(catalog.part),
            rejected_part=_path(rejected.part),
            rejected_sha256=_sha256(rejected.part),
            device=device or engine.device,
            worker=worker,
            host=socket.gethostname(),
            versions=versions(),
            started=started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
            seconds=time.perf_counter() - begin,
            stage_seconds=watch.seconds,
        )
        write_receipt(output, receipt)
    except BaseException:
        for part in (catalog.part, rejected.part):
            if part is not None:
                (output / part.path).unlink(missing_ok=True)
        raise
    return receipt


def _stream(
    engine: Engine, chunk: Chunk, companion: Companion | None, watch: Stopwatch
) -> Iterator[tuple[int, pa.Table, pa.Table]]:
    """Batch by batch: rows read, rows of the catalog, rejected rows."""
    with watch.time("read"):
        seen = Duplicates(_identifiers(chunks.source_ids_before(chunk)))
        batches = iter(chunks.spectra(chunk, correlations=_reads_correlations(engine)))
    file = masked(named(chunk.file))
    while True:
        with watch.time("read"):
            batch = next(batches, None)
        if batch is None:
            return
        with watch.time("screen"):
            good, refused = screen(batch, engine.bundle.vocabulary, seen, file)
        with watch.time("match"):
            beside = None if companion is None else companion.match(good.column("source_id"))
        with watch.time("features"):
            tokens = engine.features(good, beside)
            readable = np.asarray(np.isfinite(tokens.values).any(axis=1))
            if not readable.all():
                g_known = np.isfinite(tokens.g_flux)
                good, without = screen_tokens(good, readable, g_known, file)
                refused = pa.concat_tables([refused, without]).sort_by("row")
                beside = None if beside is None else beside.filter(pa.array(readable))
                tokens = engine.features(good, beside)
        with watch.time("predict"):
            prediction = engine.predict(tokens)
        with watch.time("rows"):
            answered = engine.rows(good.column("source_id"), tokens, prediction)
        yield batch.num_rows, answered, refused


def _reads_correlations(engine: Engine) -> bool:
    return engine.job.correlations and engine.job.propagation != "none"


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of catalogproc, Python and the libraries that a number depends on."""
    found = {"catalogproc": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in LIBRARIES}


def _metadata(engine: Engine, chunk: Chunk) -> dict[str, str]:
    """What a part says of itself, besides its columns."""
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


def _check_fingerprint(chunk: Chunk, words: str) -> None:
    found = chunks.fingerprint(Path(chunk.file))
    if found != chunk.fingerprint:
        raise InputError(
            f"the input file {words}",
            wanted=f"fingerprint {chunk.fingerprint[:16]}…",
            found=f"{found[:16]}…",
            where=chunk.file,
            advice="let nothing write to the input while a run reads it; start again with a "
            "new --output to use the file as it is now",
        )


def _check_counts(chunk: Chunk, read: int, written: int, rejected: int) -> None:
    """Raise CountError unless every row of the chunk, as the file counts them, is accounted for."""
    wanted = read if chunk.rows is None else chunk.rows
    if read != wanted or written + rejected != wanted:
        raise CountError(
            "rows in and rows out disagree",
            wanted=f"{wanted} rows of the input",
            found=f"{read} read, {written} written + {rejected} rejected = {written + rejected}",
            where=f"{chunk.file}, chunk {chunk.id[:8]} from row {chunk.first_row}",
        )


def _counts(words: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in words.value_counts().to_pylist()}


def _identifiers(column: pa.Array | pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(column.drop_null().to_numpy(zero_copy_only=False), dtype=np.int64)


def _path(part: Part | None) -> str:
    return "" if part is None else part.path


def _sha256(part: Part | None) -> str:
    return "" if part is None else part.sha256
