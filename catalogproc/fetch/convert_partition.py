"""A fetched file of the archive, rewritten as one Parquet file of the input contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import CountError, InputError
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.readers.auxiliary_rows import conform, used_columns
from catalogproc.readers.convert import convert_file
from catalogproc.readers.formats import Rows, open_table
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release

_ALL_ROWS = 1 << 40
_BATCH = 1 << 16
_TRUE = ("true", "t", "1")

Watch = Callable[[int], None]


@dataclass(frozen=True)
class ConvertedPartition:
    """One input file and the two it became: read = written + rejected + left out.

    ``rejected`` is None where no row was.
    """

    path: Path
    rejected: Path | None
    rows_read: int
    rows_written: int
    rows_rejected: int
    rows_left_out: int = 0


def convert_spectra(
    file: Path, folder: Path, release: Release, correlations: bool, watch: Watch
) -> ConvertedPartition:
    """Rewrite a file of spectra.

    Parameters
    ----------
    file
        The archive's file.
    folder
        Where it is written.
    release
        Its release.
    correlations
        Whether to keep the correlations.
    watch
        Called with the number of rows so far.

    Raises
    ------
    InputError
        The file cannot be read.
    CountError
        Rows read and written disagree.
    """
    done = convert_file(
        file, folder, correlations=correlations, chunk_rows=_ALL_ROWS, release=release,
        watch=lambda rows, total, name: watch(rows),
    )  # fmt: skip
    (path,) = done.parts
    return ConvertedPartition(
        path, done.rejected, done.rows_read, done.rows_written, done.rows_rejected
    )


def convert_auxiliary(
    file: Path, folder: Path, release: Release, keep: str | None, watch: Watch
) -> ConvertedPartition:
    """Rewrite the columns of the contract gaia_source of a file.

    Parameters
    ----------
    file
        The archive's file.
    folder
        Where it is written.
    release
        Its release.
    keep
        A column of the file that must be true in the rows that are kept; None for all rows.
    watch
        Called with the number of rows so far.

    Raises
    ------
    InputError
        The file cannot be read, or lacks that column.
    CountError
        Rows read and written disagree.
    """
    table = open_table(file)
    used = used_columns(table, release)
    if keep is not None and keep not in table.types:
        raise InputError("a column is missing", wanted=keep, found=", ".join(table.types)[:200],
                         where=file)  # fmt: skip
    contract = load_contract("gaia_source").arrow_schema(release.facts)
    fields = [contract.field(column.name) for column in used]
    schema = pa.schema(fields, metadata=contract.metadata)
    names = [column.stored for column in used]
    path = folder / f"{file.name.split('.')[0]}.parquet"
    read = written = 0
    folder.mkdir(parents=True, exist_ok=True)
    with parquet_writer(path, schema, split_floats=True) as writer:
        for part in table.batches([*names, *([keep] if keep else [])], batch_rows=_BATCH):
            read += len(part.columns)
            kept = part if keep is None else _kept(part)
            ours = Rows(kept.first, kept.columns.select(range(len(names))), kept.fault)
            rows = conform(ours, used, file)
            if len(rows) != len(kept.columns):
                raise CountError("rows without a source_id", found=len(kept.columns) - len(rows),
                                 where=file)  # fmt: skip
            writer.write_table(rows.cast(schema), row_group_size=_BATCH)
            written += len(rows)
            watch(written)
    return ConvertedPartition(path, None, read, written, 0, read - written)


def keep_stars(found: ConvertedPartition, ids: Ids) -> ConvertedPartition:
    """Return a converted file with the rows of some stars only.

    Parameters
    ----------
    found
        The file, which is replaced.
    ids
        source_id of the stars (N,), sorted.
    """
    path = found.path.with_name(f"kept-{found.path.name}")
    wanted = pa.array(ids)
    kept = 0
    with pq.ParquetFile(found.path) as file:
        schema = file.schema_arrow
        with parquet_writer(path, schema, split_floats=True) as writer:
            for batch in file.iter_batches(_BATCH):
                rows = batch.filter(pc.is_in(batch.column("source_id"), wanted))
                if rows.num_rows:
                    writer.write_batch(rows.cast(schema))
                kept += rows.num_rows
    path.replace(found.path)
    left_out = found.rows_left_out + found.rows_written - kept
    return replace(found, rows_written=kept, rows_left_out=left_out)


def _kept(part: Rows) -> Rows:
    """The rows whose last column is true, as booleans or in words."""
    column = part.columns.column(part.columns.num_columns - 1)
    words = pc.utf8_lower(column.cast(pa.string()))
    mask: NDArray[np.bool_] = np.asarray(pc.is_in(words, pa.array(_TRUE)), bool)
    chosen = pa.array(mask)
    fault = None if part.fault is None else part.fault.filter(chosen)
    return Rows(part.first, part.columns.filter(chosen), fault)
