"""Small catalogs and finished runs that satisfy the contracts, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.contract import load_contract
from catalogproc.flags import load_input_flags
from catalogproc.io.parquet_writer import PartWriter
from catalogproc.release import load_release
from catalogproc.rundir.manifest import InputFile, RunIdentity, open_run
from catalogproc.rundir.receipts import Receipt, write_receipt

MODEL_HASH = hashlib.sha256(b"a model").hexdigest()
JOB_HASH = hashlib.sha256(b"a job").hexdigest()
STARTED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def source_ids(rows: int, seed: int = 0) -> np.ndarray:
    """Return distinct source_ids: odd and above 2**53, which a float64 cannot represent.

    Parameters
    ----------
    rows
        How many.
    seed
        Seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    ids = np.unique(rng.integers(2**53, 6_917_528_997_577_384_320, size=2 * rows + 8) | 1)
    return np.sort(rng.permutation(ids)[:rows])


def catalog_table(
    rows: int, seed: int = 0, *, run_id: str = "0123abcd", model_id: str = MODEL_HASH[:8]
) -> pa.Table:
    """Return a table of the contract ``catalog``: giants with physical values, some missing.

    Parameters
    ----------
    rows, seed
        Number of stars, and seed of the random numbers.
    run_id, model_id
        The values of these columns.
    """
    rng = np.random.default_rng(seed)
    teff = rng.normal(4800.0, 300.0, rows)
    mass = rng.lognormal(0.1, 0.3, rows)
    log_age = rng.normal(9.6, 0.25, rows)
    ln_ebv = rng.normal(-2.4, 0.8, rows)
    flags = (1 << rng.integers(0, 28, rows)) * (rng.random(rows) < 0.3)
    values: dict[str, np.ndarray | list[str]] = {
        "source_id": source_ids(rows, seed),
        "_healpix_29": np.where(rng.random(rows) < 0.1, -1, rng.integers(0, 12 << 58, rows)),
        "ra": rng.uniform(0.0, 360.0, rows),
        "dec": np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, rows))),
        "phot_g_mean_mag": rng.uniform(9.0, 17.0, rows),
        "bp_rp": rng.normal(1.2, 0.2, rows),
        "ruwe": rng.lognormal(0.0, 0.1, rows),
        "parallax_zpc": rng.normal(0.5, 0.4, rows),
        "e_parallax": rng.uniform(0.01, 0.1, rows),
        "teff": teff,
        "e_teff": rng.uniform(30.0, 90.0, rows),
        "logg": rng.normal(2.4, 0.4, rows),
        "e_logg": rng.uniform(0.05, 0.2, rows),
        "m_h": rng.normal(-0.2, 0.3, rows),
        "e_m_h": rng.uniform(0.03, 0.1, rows),
        "mass": mass,
        "e_mass": 0.1 * mass,
        "mass_16": 0.9 * mass,
        "mass_84": 1.1 * mass,
        "log_age": log_age,
        "e_log_age": np.full(rows, 0.1),
        "age": 10.0 ** (log_age - 9.0),
        "ln_ebv": ln_ebv,
        "ebv": np.exp(ln_ebv),
        "dist": rng.lognormal(0.5, 0.4, rows),
        "dist_84": np.where(rng.random(rows) < 0.2, np.nan, rng.lognormal(0.6, 0.4, rows)),
        "n_tokens": rng.integers(13, 64, rows).astype(np.int16),
        "has_tmass": rng.random(rows) < 0.5,
        "quality_flags": flags.astype(np.int32),
        "input_flags": rng.integers(0, 1 << len(load_input_flags().flags), rows).astype(np.int32),
        "good_params": flags == 0,
        "good_mass_age": (flags == 0) & (rng.random(rows) < 0.8),
        "model_id": [model_id] * rows,
        "run_id": [run_id] * rows,
    }
    return load_contract("catalog").assemble(values, rows)


def rejected_table(
    rows: int, file: str, *, first_row: int = 0, reason: str = "no_coefficients"
) -> pa.Table:
    """Return a table of the contract ``rejected``; every second row has no source_id.

    Parameters
    ----------
    rows, file, first_row, reason
        Number of rows, and the values of these columns.
    """
    ids = [None if row % 2 else 2**60 + first_row + row for row in range(rows)]
    values = {
        "source_id": pa.array(ids, pa.int64()),
        "file": [file] * rows,
        "row": np.arange(first_row, first_row + rows),
        "reason": [reason] * rows,
        "detail": ["wanted 55 coefficients, found 0 ≠ 55"] * rows,
    }
    return load_contract("rejected").assemble(values, rows)


def identity(files: int = 2, rows: int | None = None) -> RunIdentity:
    """Return a run over made-up files a.parquet, b.parquet, …

    Parameters
    ----------
    files
        Number of files.
    rows
        Number of rows of each; None if unknown.
    """
    names = [f"xp/{chr(ord('a') + number)}.parquet" for number in range(files)]
    return RunIdentity(
        job={"name": "test", "labels": ["teff", "mass"], "chunk_rows": 100},
        job_hash=JOB_HASH,
        model={"name": "tiny", "description": "of tests", "training": {"data": "simulated"}},
        model_hash=MODEL_HASH,
        release=load_release().to_dict(),
        inputs=tuple(
            InputFile(name, hashlib.sha256(name.encode()).hexdigest(), rows) for name in names
        ),
    )


def write_chunk(
    folder: Path,
    run: RunIdentity,
    number: int,
    file: InputFile,
    first_row: int,
    table: pa.Table,
    rejected: int = 0,
) -> Receipt:
    """Write a chunk's parts and its receipt as a worker does.

    Parameters
    ----------
    folder, run, number
        The output folder, the run, and the number of the chunk, which sets its start time.
    file, first_row
        Which rows of which input file it covers.
    table, rejected
        The catalog's rows, and the number of rejected rows.
    """
    chunk = hashlib.sha256(f"{file.fingerprint} {first_row}".encode()).hexdigest()[:16]
    metadata = {"run": run.run_id, "model": run.model_hash}
    with PartWriter(folder, chunk, load_contract("catalog"), metadata) as catalog:
        catalog.write(table)
    with PartWriter(
        folder, chunk, load_contract("rejected"), metadata, allow_empty=False
    ) as refused:
        if rejected:
            refused.write(rejected_table(rejected, file.path, first_row=first_row))
    assert catalog.part is not None
    started = STARTED + timedelta(seconds=number)
    receipt = Receipt(
        chunk_id=chunk,
        file=file.path,
        first_row=first_row,
        rows_read=table.num_rows + rejected,
        rows_written=table.num_rows,
        rows_rejected=rejected,
        rejected_by_reason={"no_coefficients": rejected} if rejected else {},
        auxiliary={},
        zero_point_differences={},
        rows_matched=table.num_rows if run.auxiliary else 0,
        job_hash=run.job_hash,
        bundle_hash=run.model_hash,
        input_fingerprint=file.fingerprint,
        input_sha256=hashlib.sha256(chunk.encode()).hexdigest(),
        catalog_part=catalog.part.path,
        catalog_sha256=catalog.part.sha256,
        rejected_part=refused.part.path if refused.part else "",
        rejected_sha256=refused.part.sha256 if refused.part else "",
        device="cpu",
        worker="0",
        host="a-host",
        versions={"catalogproc": "0.1.0", "python": "3.11"},
        started=started.isoformat(),
        finished=(started + timedelta(seconds=2)).isoformat(),
        seconds=2.0,
        stage_seconds={"read": 0.5, "model": 1.5},
    )
    write_receipt(folder, receipt)
    return receipt


def finished_run(
    folder: Path,
    *,
    files: int = 2,
    chunks: int = 2,
    rows: int = 50,
    rejected: int = 3,
    tables: Sequence[pa.Table] | None = None,
) -> RunIdentity:
    """Write the output folder of a finished run.

    Parameters
    ----------
    folder
        The output folder.
    files, chunks
        Number of input files, and of chunks in each.
    rows, rejected
        Number of catalog rows and of rejected rows in each chunk.
    tables
        The catalog's rows of each chunk instead of made-up ones.
    """
    from catalogproc.rundir.provenance import write_provenance
    from catalogproc.rundir.summary import write_summary

    run = identity(files, chunks * (rows + rejected))
    open_run(folder, run)
    catalogs = tables or [
        catalog_table(rows, seed, run_id=run.run_id) for seed in range(files * chunks)
    ]
    for number, table in enumerate(catalogs):
        file, place = run.inputs[number // chunks], number % chunks
        write_chunk(folder, run, number, file, place * (rows + rejected), table, rejected)
    write_summary(folder)
    write_provenance(folder)
    return run
