"""Which stars are asked for: those of a table, or of a condition."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.contract import load_contract
from catalogproc.errors import InputError
from catalogproc.fetch.retries import Retries
from catalogproc.fetch.tap import tap_query
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.readers.coerce import identifiers
from catalogproc.readers.column_lookup import check_identifier, find_column
from catalogproc.readers.formats import open_table
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release

_ROWS = 1 << 16


def read_ids(path: Path, release: Release | None = None) -> Ids:
    """Return the source_id of a table, in its order.

    Parameters
    ----------
    path
        A table in any format.
    release
        What the column is called comes from here first.

    Raises
    ------
    InputError
        It has no column source_id, or one that holds something else.
    """
    table = open_table(path)
    column = load_contract("gaia_source")["source_id"]
    called = None if release is None else release.column("source_id")
    name = find_column(table, column, called)
    if name is None:
        raise InputError("a column is missing", wanted="source_id",
                         found=", ".join(table.types)[:200], where=path)  # fmt: skip
    check_identifier(table, name)
    parts = []
    for part in table.batches([name], batch_rows=_ROWS):
        ids, bad = identifiers(part.columns.column(0))
        if bad.any() or ids.null_count:
            row = part.first + int(np.flatnonzero(bad | np.asarray(ids.is_null()))[0])
            raise InputError("a row has no source_id", where=f"{path}, row {row}")
        parts.append(ids.to_numpy())
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def selected_ids(tap: str, adql: str, folder: Path, retries: Retries) -> Ids:
    """Return the stars that a query selects; the list of an earlier call is kept.

    Parameters
    ----------
    tap
        Address of the service.
    adql
        The query.
    folder
        Where the list is kept.
    retries
        How patient the requests are.

    Raises
    ------
    DownloadError
        The query failed.
    """
    path = folder / f"_selected-{hashlib.sha256(adql.encode()).hexdigest()[:12]}.parquet"
    if not path.is_file():
        with scratch_folder(folder, "selected") as scratch:
            answer = scratch / "selected.vot"
            found: Ids = np.empty(0, np.int64)
            if tap_query(tap, adql, answer, retries):
                found = read_ids(answer)
            table = pa.table({"source_id": pa.array(found, pa.int64())})
            pq.write_table(table, scratch / path.name)
            publish(scratch / path.name, path)
    return read_ids(path)
